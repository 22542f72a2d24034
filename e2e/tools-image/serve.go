package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
)

// hostname is the Pod's name, so that a test sees which Pod answered.
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}

// tcpEcho answers every line with the same line behind the host name.
func tcpEcho(addr string) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			lines := bufio.NewScanner(conn)
			for lines.Scan() {
				if _, err := fmt.Fprintf(conn, "%s: %s\n", hostname(), lines.Text()); err != nil {
					return
				}
			}
		}()
	}
}

// udpEcho answers every datagram with the same payload behind the host name.
func udpEcho(addr string) error {
	conn, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	payload := make([]byte, 65535)
	for {
		n, from, err := conn.ReadFrom(payload)
		if err != nil {
			return err
		}
		answer := append([]byte(hostname()+": "), payload[:n]...)
		// A peer that went away must not end the server.
		_, _ = conn.WriteTo(answer, from)
	}
}

func serveHTTP(addr string) error {
	return http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s\n", hostname(), r.URL.Path, r.Method)
	}))
}
