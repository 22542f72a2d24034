package cluster

import (
	"context"
	"crypto/subtle"
	"regexp"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// BootstrapTokenForm has the token's identity and its secret as groups.
var BootstrapTokenForm = regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16})$`)

// BootstrapToken tells whether a token is one of `k3s token create` that has not
// run out.
func BootstrapToken(ctx context.Context, client kubernetes.Interface, token string) (bool, error) {
	parts := BootstrapTokenForm.FindStringSubmatch(token)
	if parts == nil {
		return false, nil
	}
	secret, err := client.CoreV1().Secrets("kube-system").Get(ctx, "bootstrap-token-"+parts[1], metav1.GetOptions{})
	if err != nil {
		return false, unlessGone(err)
	}
	return validBootstrapToken(secret, parts[2], time.Now()), nil
}

func validBootstrapToken(secret *corev1.Secret, given string, now time.Time) bool {
	if secret.Type != corev1.SecretTypeBootstrapToken || string(secret.Data["usage-bootstrap-authentication"]) != "true" {
		return false
	}
	if text := string(secret.Data["expiration"]); text != "" {
		end, err := time.Parse(time.RFC3339, text)
		if err != nil || !now.Before(end) {
			return false
		}
	}
	return subtle.ConstantTimeCompare(secret.Data["token-secret"], []byte(given)) == 1
}
