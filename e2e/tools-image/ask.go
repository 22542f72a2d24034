package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// patience bounds whatever waits for somebody else; a test polls around it.
const patience = 5 * time.Second

const getUsage = "get URL [--cacert FILE] [--cert FILE --key FILE] [--server-name NAME] [--token-file FILE]"

// ask sends one line to an echo and prints the first answer.
func ask(network string) func(addr, text string) error {
	return func(addr, text string) error {
		conn, err := net.DialTimeout(network, addr, patience)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		if network == "tcp" {
			text += "\n"
		}
		if _, err := io.WriteString(conn, text); err != nil {
			return err
		}
		answer := make([]byte, 65535)
		n, err := conn.Read(answer)
		if err != nil {
			return err
		}
		fmt.Println(strings.TrimSuffix(string(answer[:n]), "\n"))
		return nil
	}
}

func resolve(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, name)
	if err != nil {
		return err
	}
	for _, address := range addresses {
		fmt.Println(address)
	}
	return nil
}

// get prints the status code on a line of its own and then the body. A status
// of 400 and above is a failure, so that a script need not parse.
func get(args []string) error {
	flags := flag.NewFlagSet("get", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	cacert := flags.String("cacert", "", "")
	cert := flags.String("cert", "", "")
	key := flags.String("key", "", "")
	serverName := flags.String("server-name", "", "")
	tokenFile := flags.String("token-file", "", "")

	// The URL may stand before its options, as it does with curl.
	var url string
	for len(args) > 0 {
		if err := flags.Parse(args); err != nil {
			return fmt.Errorf("%w: %v", errUsage, err)
		}
		if args = flags.Args(); len(args) == 0 {
			break
		}
		if url != "" {
			return errUsage
		}
		url, args = args[0], args[1:]
	}
	if url == "" {
		return errUsage
	}

	config, err := tlsConfig(*cacert, *cert, *key, *serverName)
	if err != nil {
		return err
	}
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if *tokenFile != "" {
		token, err := os.ReadFile(*tokenFile)
		if err != nil {
			return err
		}
		request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	client := &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: config}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	fmt.Println(response.StatusCode)
	if _, err := io.Copy(os.Stdout, response.Body); err != nil {
		return err
	}
	if response.StatusCode >= 400 {
		return fmt.Errorf("%s answered %s", url, response.Status)
	}
	return nil
}

func tlsConfig(cacert, cert, key, serverName string) (*tls.Config, error) {
	config := &tls.Config{ServerName: serverName}
	if cacert != "" {
		pem, err := os.ReadFile(cacert)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", cacert)
		}
	}
	if cert != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
