package pki

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// FormatToken is the full form of docs.k3s.io/cli/token:
// K10<hash of the CA>::<user>:<password>.
func FormatToken(authority []byte, user, password string) string {
	hash := sha256.Sum256(authority)
	return "K10" + hex.EncodeToString(hash[:]) + "::" + user + ":" + password
}

// ParsePassword takes the password out of a full or a short token.
func ParsePassword(token string) (string, error) {
	token = strings.TrimSpace(token)
	if !strings.HasPrefix(token, "K10") {
		return token, nil
	}
	_, credentials, found := strings.Cut(token, "::")
	if !found {
		return "", fmt.Errorf("the token starts with K10 but has no `::`: give it whole, or a password alone")
	}
	if _, password, found := strings.Cut(credentials, ":"); found {
		return password, nil
	}
	return credentials, nil
}

// TokenHash is the hash of the CA in a full token; a short one has none.
func TokenHash(token string) string {
	hash, _, found := strings.Cut(strings.TrimPrefix(strings.TrimSpace(token), "K10"), "::")
	if !found || !strings.HasPrefix(strings.TrimSpace(token), "K10") {
		return ""
	}
	return hash
}

// NewPassword is what k3s makes when it is given no token.
func NewPassword() (string, error) {
	bytes := make([]byte, 16)
	if _, err := rand.Read(bytes); err != nil {
		return "", fmt.Errorf("make a random token: %w", err)
	}
	return hex.EncodeToString(bytes), nil
}
