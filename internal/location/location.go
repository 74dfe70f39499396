// Package location reads what the URLs of drivers with servers have in common:
// parameters, and the PEM files that some of them name. It knows nothing of servers.
package location

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
)

// Take takes a parameter out of params, which may be there once. The text is empty if it
// is not there.
func Take(params url.Values, name string) (string, error) {
	values, ok := params[name]
	if !ok {
		return "", nil
	}
	if len(values) != 1 || values[0] == "" {
		return "", fmt.Errorf("parameter %s is %q, want one text", name, values)
	}
	params.Del(name)
	return values[0], nil
}

// PEM are the names of PEM files: whom a client trusts, and who it is. Each may be
// empty.
type PEM struct{ CA, Cert, Key string }

// Check reports whether p fits a URL; secure is the scheme of one that is over TLS.
func (p *PEM) Check(isSecure bool, secure string) error {
	switch {
	case *p != PEM{} && !isSecure:
		return fmt.Errorf("ca_file, cert_file and key_file are for %s://", secure)
	case (p.Cert == "") != (p.Key == ""):
		return errors.New("cert_file and key_file go together")
	}
	return nil
}

// Load reads the files into c.
func (p *PEM) Load(c *tls.Config) error {
	if p.CA != "" {
		pem, err := os.ReadFile(p.CA)
		if err != nil {
			return fmt.Errorf("ca_file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("ca_file: no certificate in %s", p.CA)
		}
	}
	if p.Cert != "" {
		cert, err := tls.LoadX509KeyPair(p.Cert, p.Key)
		if err != nil {
			return fmt.Errorf("cert_file and key_file: %w", err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return nil
}
