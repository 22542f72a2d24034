package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"k3nest.dev/k3nest/e2e/node-image/internal/logging"
	"k3nest.dev/k3nest/e2e/node-image/internal/pki"
)

// NodePassword is what binds a node's name to the machine that had it first
// (docs.k3s.io/architecture, "How agent node registration works").
type NodePassword struct{ Node, Password string }

// Keep has the server's own node in the cluster's memory. As in k3s, a server
// whose password is another than the one remembered is told of, by an event on
// its Node, and runs: only who joins can be turned away. afterReset forgets what
// a restored snapshot remembers of this node, which may be older than the node.
func (p NodePassword) Keep(ctx context.Context, client kubernetes.Interface, afterReset bool) {
	if afterReset && !Retry(ctx, "forget the node password of before the reset", func() error {
		return unlessGone(client.CoreV1().Secrets("kube-system").Delete(ctx, p.secretName(), metav1.DeleteOptions{}))
	}) {
		return
	}
	var refused error
	if !Retry(ctx, "remember the node password", func() error {
		err := p.ensure(ctx, client)
		if errors.Is(err, pki.ErrOtherPassword) {
			refused, err = err, nil
		}
		return err
	}) {
		return
	}
	kind, reason, message := corev1.EventTypeNormal, "NodePasswordValidationComplete", "Deferred node password secret validation complete"
	if refused != nil {
		kind, reason = corev1.EventTypeWarning, "NodePasswordValidationFailed"
		message = fmt.Sprintf("Deferred node password secret validation failed: %v", refused)
		logging.Errorf("%s; delete the Node %s and start it again if it is a new machine", message, p.Node)
	}
	Retry(ctx, "tell of the node password", func() error { return p.tell(ctx, client, kind, reason, message) })
	if refused == nil {
		Retry(ctx, "bind the node password to its Node", func() error { return p.bind(ctx, client) })
	}
}

// Admit is the rule for a node that joins: the first to have the name keeps it.
func (p NodePassword) Admit(ctx context.Context, client kubernetes.Interface) error {
	if p.Password == "" {
		return fmt.Errorf("the node %s has no password: %w", p.Node, pki.ErrOtherPassword)
	}
	err := p.ensure(ctx, client)
	if apierrors.IsAlreadyExists(err) { // another server was asked at the same time
		return p.ensure(ctx, client)
	}
	return err
}

// BindSoon binds the Secret of a node that was let in to the Node that it is
// about to make.
func (p NodePassword) BindSoon(ctx context.Context, client kubernetes.Interface) {
	const soon = 5 * time.Minute
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	Retry(ctx, "bind the password of the node "+p.Node, func() error { return p.bind(ctx, client) })
}

func (p NodePassword) secretName() string { return strings.ToLower(p.Node + ".node-password.k3s") }

// ensure makes the Secret, or compares the password with the one that is there.
func (p NodePassword) ensure(ctx context.Context, client kubernetes.Interface) error {
	secrets := client.CoreV1().Secrets("kube-system")
	found, err := secrets.Get(ctx, p.secretName(), metav1.GetOptions{})
	if err == nil {
		if err := pki.VerifyPassword(string(found.Data["hash"]), p.Password); err != nil {
			return fmt.Errorf("unable to verify password for node %s: %w", p.Node, err)
		}
		return nil
	}
	if !apierrors.IsNotFound(err) {
		return err
	}
	hash, err := pki.HashPassword(p.Password)
	if err != nil {
		return err
	}
	immutable := true
	_, err = secrets.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: p.secretName()},
		Type:       "k3s.cattle.io/node-password",
		Immutable:  &immutable,
		Data:       map[string][]byte{"hash": []byte(hash)},
	}, metav1.CreateOptions{})
	return err
}

// bind makes the Node the Secret's owner: whoever deletes the Node lets another
// machine have its name.
func (p NodePassword) bind(ctx context.Context, client kubernetes.Interface) error {
	node, err := client.CoreV1().Nodes().Get(ctx, p.Node, metav1.GetOptions{})
	if err != nil {
		return err
	}
	secrets := client.CoreV1().Secrets("kube-system")
	secret, err := secrets.Get(ctx, p.secretName(), metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, owner := range secret.OwnerReferences {
		if owner.UID == node.UID {
			return nil
		}
	}
	secret.OwnerReferences = append(secret.OwnerReferences,
		metav1.OwnerReference{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID})
	_, err = secrets.Update(ctx, secret, metav1.UpdateOptions{})
	return err
}

func (p NodePassword) tell(ctx context.Context, client kubernetes.Interface, kind, reason, message string) error {
	now := time.Now()
	_, err := client.CoreV1().Events("default").Create(ctx, &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s.%x", p.Node, now.UnixNano()), Namespace: "default"},
		// The name as the UID is how the kubelet's own events name a Node.
		InvolvedObject: corev1.ObjectReference{Kind: "Node", Name: p.Node, UID: types.UID(p.Node)},
		Reason:         reason,
		Message:        message,
		Type:           kind,
		Source:         corev1.EventSource{Component: "k3s-supervisor", Host: p.Node},
		FirstTimestamp: metav1.NewTime(now),
		LastTimestamp:  metav1.NewTime(now),
		Count:          1,
	}, metav1.CreateOptions{})
	return err
}
