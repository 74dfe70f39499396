package amqp_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// An authority makes certificates.
type authority struct {
	t    *testing.T
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.issue("ca", &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// issue writes a certificate and its key to files.
func (a *authority) issue(name string, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t := a.t
	t.Helper()
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der := must(x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer))(t)
	a.write(name+".crt", "CERTIFICATE", der)
	a.write(name+".key", "PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key))(t))
	return must(x509.ParseCertificate(der))(t), key
}

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(a.file(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// TestTLS trusts the authority that a URL names and no other, and shows a certificate to a
// server that wants one.
func TestTLS(t *testing.T) {
	t.Parallel()
	sharedServer(t)
	ours, other := newAuthority(t), newAuthority(t)
	ours.issue("server", &x509.Certificate{SerialNumber: big.NewInt(2), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	ours.issue("client", &x509.Certificate{SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "client"}})
	addr := must(freeAddr())(t)
	newServer(t, "listeners.ssl.local = "+addr, "ssl_options.cacertfile = "+ours.file("ca.crt"),
		"ssl_options.certfile = "+ours.file("server.crt"), "ssl_options.keyfile = "+ours.file("server.key"),
		"ssl_options.verify = verify_peer", "ssl_options.fail_if_no_peer_cert = true")
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) { // it listens here a moment after it serves there
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	_, d, err := driver.Default.Lookup("amqps")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(background, patience)
	defer cancel()
	mine := "&cert_file=" + ours.file("client.crt") + "&key_file=" + ours.file("client.key")
	base := "amqps://guest:guest@" + addr + "/?ca_file="
	b := must(d.OpenBroker(ctx, config(t, base+ours.file("ca.crt")+mine)))(t)
	defer b.Close(background)
	if err := b.Publish(ctx, messages(1, "q")); err != nil {
		t.Error(err)
	}
	for text, is := range map[string]func(error) bool{
		base + other.file("ca.crt") + mine:              isUnknown,
		"amqps://guest:guest@" + addr + "/?" + mine[1:]: isUnknown,
		base + ours.file("missing.crt") + mine:          says("missing.crt: no such file"),
		base + ours.file("server.key") + mine:           says("no certificate in"),
		base + ours.file("ca.crt"):                      isRefused,
		strings.Replace(base, "127.0.0.1", "localhost", 1) + ours.file("ca.crt") + mine: func(err error) bool {
			var he x509.HostnameError
			return errors.As(err, &he) && he.Host == "localhost"
		},
	} {
		b, err := d.OpenBroker(ctx, config(t, text))
		if err == nil {
			b.Close(background)
		}
		if err == nil || !is(err) {
			t.Errorf("%s: got %v, want an error that says what is wrong", text, err)
		}
	}
}

// says returns what tells errors with a text.
func says(text string) func(error) bool {
	return func(err error) bool { return strings.Contains(err.Error(), text) }
}

// isUnknown tells errors of a certificate by somebody unknown, with the advice.
func isUnknown(err error) bool {
	var ue x509.UnknownAuthorityError
	return errors.As(err, &ue) && strings.HasSuffix(err.Error(), "name the server's CA with ca_file")
}

// isRefused tells errors of a server that wants a certificate: it says so or hangs up.
func isRefused(err error) bool {
	return slices.ContainsFunc([]string{"remote error: tls: ", "connection reset", "broken pipe", "EOF"},
		func(text string) bool { return says(text)(err) })
}
