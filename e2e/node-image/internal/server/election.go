package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/version"
	"go.etcd.io/raft/v3/raftpb"

	"k3nest.dev/k3nest/e2e/node-image/internal/logging"
)

// electAlone spares the only member of an etcd the wait for an election that it
// cannot lose: with k3s's timings half a second to five at each start. It says
// to the member, as a leader that steps down would, that it may stand at once.
//
// Not before everything is applied that was agreed on: raft looks through what it
// has not applied yet for changes of the members, and etcd may have compacted that
// already in the moment before raft is told. That would end etcd with a panic.
//
// It ends when ctx does, or when there are other members.
func (e etcdMember) electAlone(ctx context.Context) {
	client, err := e.peerClient()
	if err != nil {
		logging.Debugf("etcd takes its time to elect itself: %v", err)
		return
	}
	defer client.CloseIdleConnections()
	looks := 0
	for {
		if e.hasApplied(ctx) {
			looks++
		} else {
			looks = 0
		}
		// The second look comes after raft was told, too.
		if looks > 1 {
			// An error means that it does not listen yet.
			if done, _ := e.sayStand(ctx, client); done {
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// hasApplied tells whether etcd has applied all that it knows to be agreed on.
func (e etcdMember) hasApplied(ctx context.Context) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:2381/metrics", nil)
	if err != nil {
		return false
	}
	client := http.Client{Timeout: time.Second}
	response, err := client.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	value := map[string]string{}
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if name, text, found := strings.Cut(lines.Text(), " "); found {
			value[name] = text
		}
	}
	committed := value["etcd_server_proposals_committed_total"]
	return committed != "" && committed != "0" && committed == value["etcd_server_proposals_applied_total"]
}

// sayStand is done when there is nobody to say it to.
func (e etcdMember) sayStand(ctx context.Context, client *http.Client) (done bool, err error) {
	header, content, err := e.askPeer(ctx, client, http.MethodGet, "/members", nil, nil)
	if err != nil {
		return false, err
	}
	var members []struct{ ID uint64 }
	if err := json.Unmarshal(content, &members); err != nil || len(members) != 1 {
		return true, err
	}
	self := members[0].ID
	message := raftpb.Message{Type: raftpb.MsgTimeoutNow, From: self, To: self}
	body, err := message.Marshal()
	if err != nil {
		return true, err
	}
	_, _, err = e.askPeer(ctx, client, http.MethodPost, "/raft", body, map[string]string{
		"X-Etcd-Cluster-ID":     header.Get("X-Etcd-Cluster-ID"),
		"X-Server-Version":      version.Version,
		"X-Min-Cluster-Version": version.MinClusterVersion,
	})
	return false, err
}

func (e etcdMember) peerClient() (*http.Client, error) {
	tls12 := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	pair, err := tls.LoadX509KeyPair(e.Dirs.TLS("etcd/peer-server-client.crt"), e.Dirs.TLS("etcd/peer-server-client.key"))
	if err != nil {
		return nil, err
	}
	authority, err := os.ReadFile(e.Dirs.TLS("etcd/peer-ca.crt"))
	if err != nil {
		return nil, err
	}
	tls12.RootCAs.AppendCertsFromPEM(authority)
	tls12.Certificates = []tls.Certificate{pair}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: tls12}, Timeout: time.Second}, nil
}

func (e etcdMember) askPeer(ctx context.Context, client *http.Client, method, path string, body []byte, headers map[string]string) (http.Header, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, "https://127.0.0.1:2380"+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err == nil && response.StatusCode >= http.StatusBadRequest {
		err = fmt.Errorf("etcd answered %s to %s", response.Status, path)
	}
	return response.Header, content, err
}
