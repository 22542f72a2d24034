package server

import (
	"fmt"
	"strings"

	"k3nest.dev/k3nest/e2e/node-image/internal/arguments"
	"k3nest.dev/k3nest/e2e/node-image/internal/etcd"
	"k3nest.dev/k3nest/e2e/node-image/internal/layout"
	"k3nest.dev/k3nest/e2e/node-image/internal/options"
)

// The flags of the three control plane components are k3s's where the choice
// can be seen from outside.

func apiServerArgs(o *options.Options, advertise string) []string {
	tls := o.Dirs().TLS
	issuer := "https://kubernetes.default.svc." + o.ClusterDomain
	args := []string{
		"--advertise-address=" + advertise,
		"--allow-privileged=true",
		"--anonymous-auth=false",
		"--api-audiences=" + issuer + ",k3s",
		"--authorization-mode=Node,RBAC",
		"--bind-address=" + o.BindAddress,
		"--cacerts-file=" + tls("server-ca.crt"), // ours, as --supervisor-socket: see internal/front
		"--client-ca-file=" + tls("client-ca.crt"),
		"--enable-admission-plugins=NodeRestriction",
		"--enable-aggregator-routing=true",
		"--enable-bootstrap-token-auth=true",
		"--etcd-cafile=" + tls("etcd/server-ca.crt"),
		"--etcd-certfile=" + tls("etcd/client.crt"),
		"--etcd-keyfile=" + tls("etcd/client.key"),
		"--etcd-servers=" + etcd.Local,
		"--kubelet-certificate-authority=" + tls("server-ca.crt"),
		"--kubelet-client-certificate=" + tls("client-kube-apiserver.crt"),
		"--kubelet-client-key=" + tls("client-kube-apiserver.key"),
		"--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
		"--profiling=false",
		"--proxy-client-cert-file=" + tls("client-auth-proxy.crt"),
		"--proxy-client-key-file=" + tls("client-auth-proxy.key"),
		"--requestheader-allowed-names=system:auth-proxy",
		"--requestheader-client-ca-file=" + tls("request-header-ca.crt"),
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-username-headers=X-Remote-User",
		fmt.Sprintf("--secure-port=%d", o.HTTPSPort),
		"--service-account-issuer=" + issuer,
		"--service-account-key-file=" + tls("service.pub"),
		"--service-account-signing-key-file=" + tls("service.key"),
		"--service-cluster-ip-range=" + strings.Join(o.ServiceCIDR, ","),
		"--service-node-port-range=" + o.ServiceNodePortRange,
		"--shutdown-delay-duration=0s",
		"--supervisor-socket=" + layout.SupervisorSocket,
		"--tls-cert-file=" + tls("serving-kube-apiserver.crt"),
		"--tls-private-key-file=" + tls("serving-kube-apiserver.key"),
	}
	if o.SecretsEncryption {
		args = append(args, "--encryption-provider-config="+encryptionConfigPath(o.Dirs()))
	}
	return arguments.Merge(verbosity(args, o), o.APIServerArgs)
}

func controllerManagerArgs(o *options.Options) []string {
	tls, kubeconfig := o.Dirs().TLS, o.Dirs().Credential("controller")
	args := []string{
		"--allocate-node-cidrs=true",
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=127.0.0.1",
		"--cluster-cidr=" + strings.Join(o.ClusterCIDR, ","),
		"--controllers=*,tokencleaner",
		// Each controller makes itself a client at the start; at the default rate
		// that alone takes four seconds.
		"--kube-api-qps=200",
		"--kube-api-burst=400",
		"--kubeconfig=" + kubeconfig,
		"--profiling=false",
		"--root-ca-file=" + tls("server-ca.crt"),
		"--secure-port=10257",
		"--service-account-private-key-file=" + tls("service.key"),
		"--service-cluster-ip-range=" + strings.Join(o.ServiceCIDR, ","),
		"--tls-cert-file=" + tls("serving-kube-apiserver.crt"), // one of its own costs two RSA keys at each start
		"--tls-private-key-file=" + tls("serving-kube-apiserver.key"),
		"--use-service-account-credentials=true",
	}
	for _, signer := range []struct{ name, authority string }{
		{"kube-apiserver-client", "client-ca"}, {"kubelet-client", "client-ca"},
		{"kubelet-serving", "server-ca"}, {"legacy-unknown", "server-ca"},
	} {
		args = append(args,
			"--cluster-signing-"+signer.name+"-cert-file="+tls(signer.authority+".crt"),
			"--cluster-signing-"+signer.name+"-key-file="+tls(signer.authority+".key"))
	}
	return arguments.Merge(verbosity(args, o), o.ControllerManagerArgs)
}

func schedulerArgs(o *options.Options) []string {
	tls, kubeconfig := o.Dirs().TLS, o.Dirs().Credential("scheduler")
	return arguments.Merge(verbosity([]string{
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=127.0.0.1",
		"--kubeconfig=" + kubeconfig,
		"--profiling=false",
		"--secure-port=10259",
		"--tls-cert-file=" + tls("serving-kube-apiserver.crt"), // as above
		"--tls-private-key-file=" + tls("serving-kube-apiserver.key"),
	}, o), o.SchedulerArgs)
}

func verbosity(args []string, o *options.Options) []string {
	if o.Verbosity == 0 {
		return args
	}
	return append(args, fmt.Sprintf("--v=%d", o.Verbosity))
}
