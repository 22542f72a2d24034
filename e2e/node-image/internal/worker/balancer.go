package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"k3nest.dev/k3nest/e2e/node-image/internal/layout"
	"k3nest.dev/k3nest/e2e/node-image/internal/logging"
)

const (
	dialLimit = 2 * time.Second
	// A server whose machine is gone answers nothing, not even that it is gone:
	// connections to it end after this long without an acknowledgement.
	silenceLimit = 10 * time.Second
)

// balancer is k3s's client-side load balancer (docs.k3s.io/architecture, "Fixed
// Registration Address for Agent Nodes"): what runs on this node speaks to it,
// and it to whichever server answers. It passes bytes and knows no TLS.
type balancer struct {
	file string // where the servers are remembered for the next start

	mu      sync.Mutex
	first   string               // the one of --server, perhaps a load balancer itself
	servers []string             // those that the cluster has told of
	failed  map[string]time.Time // when one did not accept a connection
}

func newBalancer(server, file string) (*balancer, error) {
	address, err := url.Parse(server)
	if err != nil || address.Host == "" || address.Scheme != "https" {
		return nil, fmt.Errorf("--server %q is not of the form https://HOST:PORT", server)
	}
	port := address.Port()
	if port == "" {
		port = "443"
	}
	b := &balancer{file: file, first: net.JoinHostPort(address.Hostname(), port), failed: map[string]time.Time{}}
	content, err := os.ReadFile(file)
	if err == nil {
		// One that cannot be read is as none: the cluster tells again.
		_ = json.Unmarshal(content, &b.servers)
	}
	return b, nil
}

func (b *balancer) serve(ctx context.Context, port int) error {
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("listen for this node's own connections to the servers (--lb-server-port): %w", err)
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return // closed: the node is stopping
			}
			go b.carry(ctx, connection.(*net.TCPConn))
		}
	}()
	return nil
}

// carry joins a connection to one of a server, until either side ends.
func (b *balancer) carry(ctx context.Context, local *net.TCPConn) {
	defer local.Close()
	remote, err := b.dial(ctx)
	if err != nil {
		logging.Debugf("No server answers: %v", err)
		return
	}
	defer remote.Close()
	both := make(chan struct{}, 2)
	pass := func(to, from *net.TCPConn) {
		io.Copy(to, from)
		to.CloseWrite()
		both <- struct{}{}
	}
	go pass(remote, local)
	go pass(local, remote)
	<-both
	// The other side may still have something to say, but not for ever.
	select {
	case <-both:
	case <-time.After(silenceLimit):
	}
}

// dial takes the first server that accepts a connection.
func (b *balancer) dial(ctx context.Context) (*net.TCPConn, error) {
	dialer := net.Dialer{
		Timeout:         dialLimit,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3},
	}
	var problems []error
	for _, server := range b.order() {
		connection, err := dialer.DialContext(ctx, "tcp", server)
		b.note(server, err)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		limitSilence(connection.(*net.TCPConn))
		return connection.(*net.TCPConn), nil
	}
	return nil, errors.Join(problems...)
}

// order is the one of --server, then those the cluster told of; but one that
// failed comes after all that did not, the one that failed longest ago first.
func (b *balancer) order() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	order := []string{b.first}
	for _, server := range b.servers {
		if server != b.first {
			order = append(order, server)
		}
	}
	slices.SortStableFunc(order, func(x, y string) int { return b.failed[x].Compare(b.failed[y]) })
	return order
}

func (b *balancer) note(server string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.failed[server] = time.Now()
	} else {
		delete(b.failed, server)
	}
}

func limitSilence(connection *net.TCPConn) {
	raw, err := connection.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silenceLimit.Milliseconds()))
		})
	}
	if err != nil {
		logging.Debugf("Limit how long a server may be silent: %v", err)
	}
}

// follow keeps the list in step with the endpoints of the API, which are the
// addresses of all servers that run.
func (b *balancer) follow(ctx context.Context, client kubernetes.Interface) {
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace("default"),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = discovery.LabelServiceName + "=kubernetes" }))
	lister := factory.Discovery().V1().EndpointSlices().Lister()
	changed := func(any) {
		if slices, err := lister.List(labels.Everything()); err == nil {
			b.learn(addressesOf(slices))
		}
	}
	factory.Discovery().V1().EndpointSlices().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: changed, UpdateFunc: func(_, new any) { changed(new) },
	})
	factory.Start(ctx.Done())
}

func addressesOf(found []*discovery.EndpointSlice) []string {
	var addresses []string
	for _, slice := range found {
		for _, port := range slice.Ports {
			for _, endpoint := range slice.Endpoints {
				for _, address := range endpoint.Addresses {
					addresses = append(addresses, net.JoinHostPort(address, strconv.Itoa(int(*port.Port))))
				}
			}
		}
	}
	slices.Sort(addresses)
	return slices.Compact(addresses)
}

func (b *balancer) learn(servers []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(servers) == 0 || slices.Equal(servers, b.servers) {
		return // none at all is what a cluster says that is just starting
	}
	b.servers = servers
	logging.Infof("Updated load balancer server addresses -> %v [default: %s]", servers, b.first)
	content, err := json.Marshal(servers)
	if err == nil {
		err = layout.Write(b.file, content, 0o600)
	}
	if err != nil {
		logging.Errorf("Failed to remember the servers: %v", err)
	}
}
