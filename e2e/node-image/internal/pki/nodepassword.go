package pki

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"

	"golang.org/x/crypto/scrypt"
)

// ErrOtherPassword is what a node gets that comes back without its password.
var ErrOtherPassword = errors.New("hash does not match")

// The hash of a node's password is k3s's, so that one can be checked by the
// other: scrypt, written as $VERSION:SALT:N:R:P:KEY with N as a power of two.
const (
	hashVersion            = 1
	hashN, hashR, hashP    = 15, 8, 1
	hashSaltLen, hashedLen = 8, 64
)

// HashPassword is what the node's Secret keeps instead of the password.
func HashPassword(password string) (string, error) {
	salt := make([]byte, hashSaltLen)
	if _, err := rand.Read(salt); err != nil {
		return "", fmt.Errorf("make a salt: %w", err)
	}
	key, err := scrypt.Key([]byte(password), salt, 1<<hashN, hashR, hashP, hashedLen)
	if err != nil {
		return "", fmt.Errorf("hash a password: %w", err)
	}
	return fmt.Sprintf("$%d:%x:%d:%d:%d:%s", hashVersion, salt, hashN, hashR, hashP,
		base64.RawStdEncoding.EncodeToString(key)), nil
}

// VerifyPassword returns ErrOtherPassword when the hash is of another one.
func VerifyPassword(hash, password string) error {
	var version, n, r, p int
	var saltText, keyText string
	if _, err := fmt.Sscanf(hash, "$%d:%16s:%d:%d:%d:%s", &version, &saltText, &n, &r, &p, &keyText); err != nil {
		return fmt.Errorf("read the hash of a password: %w", err)
	}
	if version != hashVersion || n < 1 || n > 20 {
		return fmt.Errorf("the hash of a password is of version %d with N %d, which is not known here", version, n)
	}
	salt, saltErr := hex.DecodeString(saltText)
	stored, keyErr := base64.RawStdEncoding.DecodeString(keyText)
	if err := errors.Join(saltErr, keyErr); err != nil {
		return fmt.Errorf("read the hash of a password: %w", err)
	}
	if len(stored) != hashedLen { // the beginning of a key would pass for the whole
		return fmt.Errorf("the hash of a password is cut short: %d bytes instead of %d", len(stored), hashedLen)
	}
	key, err := scrypt.Key([]byte(password), salt, 1<<n, r, p, len(stored))
	if err != nil {
		return fmt.Errorf("hash a password: %w", err)
	}
	if subtle.ConstantTimeCompare(key, stored) != 1 {
		return ErrOtherPassword
	}
	return nil
}
