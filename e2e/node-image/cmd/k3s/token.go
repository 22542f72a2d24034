package main

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"math/big"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"k3nest.dev/k3nest/e2e/node-image/internal/cluster"
	"k3nest.dev/k3nest/e2e/node-image/internal/layout"
	"k3nest.dev/k3nest/e2e/node-image/internal/pki"
)

const tokenUsage = "k3s token create|delete|generate|list"

// runToken is `k3s token` (docs.k3s.io/cli/token): bootstrap tokens, which are
// Secrets of the type bootstrap.kubernetes.io/token.
func runToken(_ string, args []string) { exitOn(token(args, os.Stdout)) }

func token(args []string, out io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("say what to do: %s", tokenUsage)
	}
	flags := flag.NewFlagSet("token", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	kubeconfig := flags.String("kubeconfig", layout.KubeconfigFile, "")
	lifetime := flags.Duration("ttl", 24*time.Hour, "")
	description := flags.String("description", "", "")
	flags.String("groups", "system:bootstrappers:k3s:default-node-token", "")
	flags.String("usages", "signing,authentication", "")
	flags.String("data-dir", layout.DefaultDataDir, "")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if args[0] == "generate" {
		made, err := generateToken()
		if err == nil {
			fmt.Fprintln(out, made)
		}
		return err
	}
	if args[0] == "rotate" {
		return fmt.Errorf("k3s token rotate is not built in k3nest's offline node image: its authorities come from the token")
	}
	client, err := cluster.Connect(*kubeconfig)
	if err != nil {
		return err
	}
	switch args[0] {
	case "create":
		return createToken(client, flags, *lifetime, *description, out)
	case "list":
		return listTokens(client, out)
	case "delete":
		return deleteTokens(client, flags.Args())
	}
	return fmt.Errorf("k3s token does not know %q: use %s", args[0], tokenUsage)
}

func createToken(client kubernetes.Interface, flags *flag.FlagSet, lifetime time.Duration, description string, out io.Writer) error {
	wanted := flags.Arg(0)
	if wanted == "" {
		var err error
		if wanted, err = generateToken(); err != nil {
			return err
		}
	}
	parts := cluster.BootstrapTokenForm.FindStringSubmatch(wanted)
	if parts == nil {
		return fmt.Errorf("%q is not a bootstrap token: six small letters or digits, a dot, sixteen more", wanted)
	}
	data := map[string]string{
		"token-id": parts[1], "token-secret": parts[2], "description": description,
		"usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true",
		"auth-extra-groups": flags.Lookup("groups").Value.String(),
	}
	if lifetime > 0 {
		data["expiration"] = time.Now().Add(lifetime).UTC().Format(time.RFC3339)
	}
	_, err := client.CoreV1().Secrets("kube-system").Create(context.Background(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-" + parts[1]},
		Type:       corev1.SecretTypeBootstrapToken,
		StringData: data,
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("create the bootstrap token: %w", err)
	}
	dirs := layout.Dirs{Data: flags.Lookup("data-dir").Value.String()}
	authority, err := os.ReadFile(dirs.TLS("server-ca.crt"))
	if err != nil {
		return fmt.Errorf("read the CA that the token names: %w", err)
	}
	full := pki.FormatToken(authority, "", wanted)
	fmt.Fprintln(out, strings.Replace(full, ":::", "::", 1)) // a bootstrap token has no user
	return nil
}

func listTokens(client kubernetes.Interface, out io.Writer) error {
	secrets, err := client.CoreV1().Secrets("kube-system").List(context.Background(),
		metav1.ListOptions{FieldSelector: "type=" + string(corev1.SecretTypeBootstrapToken)})
	if err != nil {
		return fmt.Errorf("list the bootstrap tokens: %w", err)
	}
	table := tabwriter.NewWriter(out, 10, 4, 3, ' ', 0)
	fmt.Fprint(table, "TOKEN\tTTL\tEXPIRES\tUSAGES\tDESCRIPTION\n")
	for _, secret := range secrets.Items {
		left, expires := "<forever>", "<never>"
		if at, err := time.Parse(time.RFC3339, string(secret.Data["expiration"])); err == nil {
			left, expires = time.Until(at).Round(time.Second).String(), at.Format(time.RFC3339)
		}
		fmt.Fprintf(table, "%s.<hidden>\t%s\t%s\tauthentication,signing\t%s\n",
			secret.Data["token-id"], left, expires, secret.Data["description"])
	}
	return table.Flush()
}

func deleteTokens(client kubernetes.Interface, tokens []string) error {
	if len(tokens) == 0 {
		return fmt.Errorf("name the token or its first six characters: k3s token delete TOKEN")
	}
	for _, one := range tokens {
		id, _, _ := strings.Cut(one, ".")
		err := client.CoreV1().Secrets("kube-system").Delete(context.Background(), "bootstrap-token-"+id, metav1.DeleteOptions{})
		if err != nil {
			return fmt.Errorf("delete the bootstrap token %s: %w", id, err)
		}
		fmt.Printf("bootstrap token %q deleted\n", id)
	}
	return nil
}

func generateToken() (string, error) {
	const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
	characters := make([]byte, 22)
	for i := range characters {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(alphabet))))
		if err != nil {
			return "", fmt.Errorf("make a random token: %w", err)
		}
		characters[i] = alphabet[n.Int64()]
	}
	return string(characters[:6]) + "." + string(characters[6:]), nil
}
