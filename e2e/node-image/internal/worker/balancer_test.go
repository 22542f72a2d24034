package worker

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"

	discovery "k8s.io/api/discovery/v1"
)

func newTestBalancer(t *testing.T, file string) *balancer {
	t.Helper()
	b, err := newBalancer("https://lb.example:6443", file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAServerThatFailedIsAskedLast(t *testing.T) {
	b := newTestBalancer(t, filepath.Join(t.TempDir(), "servers.json"))
	b.learn([]string{"10.0.0.1:6443", "10.0.0.2:6443"})

	b.note("lb.example:6443", errors.New("refused"))
	b.note("10.0.0.1:6443", errors.New("refused"))
	want := []string{"10.0.0.2:6443", "lb.example:6443", "10.0.0.1:6443"}
	if got := b.order(); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}

	b.note("lb.example:6443", nil)
	if got := b.order()[0]; got != "lb.example:6443" {
		t.Errorf("%s is first after the one of --server came back", got)
	}
}

func TestServersAreRememberedForTheNextStart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "servers.json")
	newTestBalancer(t, file).learn([]string{"10.0.0.1:6443"})

	b := newTestBalancer(t, file)
	b.learn(nil) // a cluster that is starting has no endpoints yet
	want := []string{"lb.example:6443", "10.0.0.1:6443"}
	if got := b.order(); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestServersWithoutAPortHaveTheOneOfHTTPS(t *testing.T) {
	b, err := newBalancer("https://lb.example", "")
	if err != nil || b.first != "lb.example:443" {
		t.Errorf("%v, %v", b, err)
	}
	if _, err := newBalancer("lb.example:6443", ""); err == nil {
		t.Error("an address without a scheme is accepted")
	}
}

func TestAddressesOfEndpoints(t *testing.T) {
	port := int32(6443)
	got := addressesOf([]*discovery.EndpointSlice{{
		Ports:     []discovery.EndpointPort{{Port: &port}},
		Endpoints: []discovery.Endpoint{{Addresses: []string{"10.0.0.2"}}, {Addresses: []string{"10.0.0.1"}}},
	}})
	if want := []string{"10.0.0.1:6443", "10.0.0.2:6443"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
