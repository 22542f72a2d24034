package options

// What k3s knows and this image accepts without doing anything, because the
// part that the flag speaks of is not in the image or has nothing to say here.
var acceptedBooleans = []string{
	"alsologtostderr", "disable-apiserver-lb", "disable-cloud-controller",
	"disable-helm-controller", "disable-network-policy", "embedded-registry",
	"enable-pprof", "flannel-external-ip", "flannel-ipv6-masq", "nonroot-devices",
	"prefer-bundled-bin", "selinux", "supervisor-metrics",
}

var acceptedTexts = []string{
	"airgap-extra-registry", "default-runtime", "egress-selector-mode",
	"etcd-s3-config-secret", "etcd-s3-timeout", "flannel-cni-conf", "flannel-conf",
	"flannel-iface", "helm-job-image", "kube-cloud-controller-manager-arg", "log,l",
	"node-external-dns", "node-internal-dns",
	"secrets-encryption-provider", "servicelb-namespace", "system-default-registry",
	"vmodule",
}

// What k3s knows and this image would have to lie about: naming one is an error.
var unbuiltBooleans = []string{
	"disable-apiserver", "disable-controller-manager", "disable-etcd", "docker",
	"etcd-s3", "kine-tls", "rootless", "with-node-id",
}

var unbuiltTexts = []string{
	"advertise-port", "container-runtime-endpoint", "datastore-cafile",
	"datastore-certfile", "datastore-endpoint", "datastore-keyfile",
	"etcd-s3-access-key", "etcd-s3-bucket", "etcd-s3-endpoint", "etcd-s3-endpoint-ca",
	"etcd-s3-folder", "etcd-s3-insecure", "etcd-s3-proxy", "etcd-s3-region",
	"etcd-s3-retention", "etcd-s3-secret-key", "etcd-s3-session-token",
	"etcd-s3-skip-ssl-verify", "image-credential-provider-bin-dir",
	"image-credential-provider-config", "image-service-endpoint", "vpn-auth",
	"vpn-auth-file",
}
