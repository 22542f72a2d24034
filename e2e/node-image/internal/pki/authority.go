// Package pki makes the certificates, keys and kubeconfigs of a node, under the
// names k3s gives them (docs.k3s.io/cli/certificate).
//
// Unlike k3s, which makes its CA keys at random and hands them to joining
// servers through the datastore, the offline node image derives them from the
// token: a node then needs nothing but the token and an address to join, and
// every server of a cluster holds the same authorities without any exchange.
// Whoever knows the token can make every key. That is right for a test fixture
// and is one reason why this image never takes k3s's name.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"time"
)

// Authority is a CA that can sign.
type Authority struct {
	Certificate *x509.Certificate
	Key         *ecdsa.PrivateKey
	PEM         []byte
}

// The authorities live as long as the clocks of test machines may differ: their
// dates are fixed, because the certificate must come out the same on each node.
var (
	authorityNotBefore = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	authorityNotAfter  = time.Date(2120, 1, 1, 0, 0, 0, 0, time.UTC)
)

// DeriveAuthority makes the same CA, byte for byte, from the same password.
func DeriveAuthority(password, name string) (*Authority, error) {
	key, err := DeriveKey(password, name)
	if err != nil {
		return nil, err
	}
	serial := sha256.Sum256([]byte("serial of " + name))
	template := &x509.Certificate{
		SerialNumber:          new(big.Int).SetBytes(serial[:15]),
		Subject:               pkix.Name{CommonName: "k3nest-offline-" + name},
		NotBefore:             authorityNotBefore,
		NotAfter:              authorityNotAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), repeatable{key})
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %s: %w", name, err)
	}
	return parseAuthority(der, key)
}

// DeriveKey makes the same P-256 key from the same password and name.
func DeriveKey(password, name string) (*ecdsa.PrivateKey, error) {
	for attempt := range 16 {
		info := fmt.Sprintf("k3nest offline node image: %s, attempt %d", name, attempt)
		seed, err := hkdf.Key(sha256.New, []byte(password), nil, info, 32)
		if err != nil {
			return nil, fmt.Errorf("derive the key of %s: %w", name, err)
		}
		// Only a seed outside the curve's order fails: about one in 2^32.
		if key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), seed); err == nil {
			return key, nil
		}
	}
	return nil, fmt.Errorf("derive the key of %s: sixteen seeds in a row lie outside P-256", name)
}

// DeriveSecret makes the same 32 bytes from the same password and name.
func DeriveSecret(password, name string) ([]byte, error) {
	return hkdf.Key(sha256.New, []byte(password), nil, "k3nest offline node image: "+name, 32)
}

func parseAuthority(der []byte, key *ecdsa.PrivateKey) (*Authority, error) {
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &Authority{certificate, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}, nil
}

// repeatable signs as RFC 6979 says: the same message gets the same signature.
type repeatable struct{ key *ecdsa.PrivateKey }

func (r repeatable) Public() crypto.PublicKey { return r.key.Public() }

func (r repeatable) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return r.key.Sign(nil, digest, opts)
}
