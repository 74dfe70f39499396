package amqp

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// pems are the names of PEM files: whom a client trusts, and who it is. Each may be
// empty.
type pems struct{ ca, cert, key string }

// check reports whether p fits the URL.
func (p *pems) check(secure bool) error {
	switch {
	case *p != pems{} && !secure:
		return errors.New("ca_file, cert_file and key_file are for amqps://")
	case (p.cert == "") != (p.key == ""):
		return errors.New("cert_file and key_file go together")
	}
	return nil
}

// load reads the files; nil if there are none.
func (p *pems) load() (*tls.Config, error) {
	if *p == (pems{}) {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if p.ca != "" {
		pem, err := os.ReadFile(p.ca)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file: no certificate in %s", p.ca)
		}
	}
	if p.cert != "" {
		cert, err := tls.LoadX509KeyPair(p.cert, p.key)
		if err != nil {
			return nil, fmt.Errorf("cert_file and key_file: %w", err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c, nil
}
