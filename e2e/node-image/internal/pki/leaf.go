package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strings"
	"time"

	"k3nest.dev/k3nest/e2e/node-image/internal/layout"
	"k3nest.dev/k3nest/e2e/node-image/internal/logging"
)

const (
	// docs.k3s.io/cli/certificate: "Client and server certificates are valid for
	// 365 days from their date of issuance" and those "that are expired, or
	// within 120 days of expiring, are automatically renewed every time K3s starts".
	leafLifetime = 365 * 24 * time.Hour
	renewWithin  = 120 * 24 * time.Hour
)

// Leaf says what a certificate is for.
type Leaf struct {
	CommonName   string
	Organization []string
	Names        []string // host names and addresses, mixed
	Usages       []x509.ExtKeyUsage
}

var (
	clientUse = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	serverUse = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	bothUses  = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
)

// Ensure keeps base.crt and base.key if they are what leaf asks for and live
// long enough, and makes them anew otherwise.
func (a *Authority) Ensure(base string, leaf Leaf, now time.Time) error {
	reason := a.whyRenew(base, leaf, now)
	if reason == "" {
		return nil
	}
	logging.Debugf("Certificate %s.crt is made anew: %s", base, reason)
	pair, err := a.Issue(leaf, now)
	if err == nil {
		err = errors.Join(
			layout.Write(base+".key", pair.Key, 0o600),
			layout.Write(base+".crt", pair.Chain, 0o644))
	}
	if err != nil {
		return fmt.Errorf("make the certificate %s.crt: %w", base, err)
	}
	return nil
}

func (a *Authority) whyRenew(base string, leaf Leaf, now time.Time) string {
	pair, err := tls.LoadX509KeyPair(base+".crt", base+".key")
	if err != nil {
		return err.Error()
	}
	found := pair.Leaf
	names, addresses := split(leaf.Names)
	switch {
	case found.CheckSignatureFrom(a.Certificate) != nil:
		return "another authority signed it"
	case found.NotAfter.Sub(now) < renewWithin:
		return "it expires " + found.NotAfter.Format(time.RFC3339)
	case found.Subject.CommonName != leaf.CommonName || !slices.Equal(found.Subject.Organization, leaf.Organization):
		return "its subject is " + found.Subject.String()
	case !slices.Equal(found.DNSNames, names) || !slices.EqualFunc(found.IPAddresses, addresses, net.IP.Equal):
		return "its names are " + strings.Join(found.DNSNames, ", ") + fmt.Sprint(found.IPAddresses)
	}
	return ""
}

// Pair is a certificate, with its authority's after it, and its key.
type Pair struct{ Chain, Key []byte }

// Issue makes a certificate without writing it anywhere.
func (a *Authority) Issue(leaf Leaf, now time.Time) (pair Pair, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return pair, err
	}
	names, addresses := split(leaf.Names)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: leaf.CommonName, Organization: leaf.Organization},
		NotBefore:    now.Add(-5 * time.Minute),
		NotAfter:     now.Add(leafLifetime),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:  leaf.Usages,
		DNSNames:     names,
		IPAddresses:  addresses,
	}, a.Certificate, key.Public(), a.Key)
	if err != nil {
		return pair, err
	}
	// The authority's certificate follows the leaf, as in k3s's files.
	pair.Chain = append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), a.PEM...)
	pair.Key, err = encodeKey(key)
	return pair, err
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

// WriteKey writes an EC private key that only root reads.
func WriteKey(path string, key *ecdsa.PrivateKey) error {
	content, err := encodeKey(key)
	if err != nil {
		return err
	}
	return layout.Write(path, content, 0o600)
}

// split sorts, too: the order in which names were asked for is no reason to
// make a certificate anew.
func split(mixed []string) (names []string, addresses []net.IP) {
	for _, name := range mixed {
		if address := net.ParseIP(name); address != nil {
			addresses = append(addresses, address)
		} else if name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	slices.SortFunc(addresses, func(a, b net.IP) int { return bytes.Compare(a.To16(), b.To16()) })
	return slices.Compact(names), slices.CompactFunc(addresses, net.IP.Equal)
}
