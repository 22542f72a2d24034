package main

import (
	"context"
	"fmt"
	"net/http"
	"os"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/rest"
	"k8s.io/component-base/cli"
	cliflag "k8s.io/component-base/cli/flag"
	basecompatibility "k8s.io/component-base/compatibility"
	logsapi "k8s.io/component-base/logs/api/v1"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	apiserveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	"k3nest.dev/k3nest/e2e/node-image/internal/front"
)

func runEtcd(name string, args []string) {
	etcdmain.Main(append([]string{name}, args...))
}

// runCobra runs a component of Kubernetes with its own command line.
func runCobra(name string, args []string) {
	var command *cobra.Command
	switch name {
	case "kube-apiserver":
		command = apiServerCommand()
	case "kube-controller-manager":
		command = controllermanager.NewControllerManagerCommand()
	case "kube-scheduler":
		command = scheduler.NewSchedulerCommand()
	case "kubelet":
		// It sets up its signals itself, unlike kube-apiserver below.
		command = kubelet.NewKubeletCommand(context.Background())
	case "kube-proxy":
		command = proxy.NewProxyCommand()
	}
	command.SetArgs(args)
	os.Args = append([]string{name}, args...)
	os.Exit(cli.Run(command))
}

// apiServerCommand is kube-apiserver with two more flags and one more handler:
// upstream's command keeps its server to itself, so its few steps are taken here.
func apiServerCommand() *cobra.Command {
	serverOptions := apiserveroptions.NewServerRunOptions()
	var authorityFile, supervisorSocket string
	command := &cobra.Command{
		Use:          "kube-apiserver",
		SilenceUsage: true,
		RunE: func(command *cobra.Command, _ []string) error {
			registry := serverOptions.GenericServerRunOptions.ComponentGlobalsRegistry
			if err := registry.Set(); err != nil {
				return err
			}
			rest.SetDefaultWarningHandler(rest.NoWarnings{})
			gates := registry.FeatureGateFor(basecompatibility.DefaultKubeComponent)
			if err := logsapi.ValidateAndApply(serverOptions.Logs, gates); err != nil {
				return err
			}
			authority, err := os.ReadFile(authorityFile)
			if err != nil {
				return fmt.Errorf("read what /cacerts answers (--cacerts-file): %w", err)
			}
			return serveAPI(command.Context(), serverOptions, func(kubernetes http.Handler) http.Handler {
				return front.Handler(authority, supervisorSocket, kubernetes)
			})
		},
	}
	command.SetContext(genericapiserver.SetupSignalContext())
	sets := serverOptions.Flags()
	for _, set := range sets.FlagSets {
		command.Flags().AddFlagSet(set)
	}
	command.Flags().StringVar(&authorityFile, "cacerts-file", "", "the PEM file that /cacerts answers")
	command.Flags().StringVar(&supervisorSocket, "supervisor-socket", "", "where the requests of joining nodes go on to")
	command.Flags().SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	return command
}

func serveAPI(ctx context.Context, serverOptions *apiserveroptions.ServerRunOptions, wrap func(http.Handler) http.Handler) error {
	completed, err := serverOptions.Complete(ctx)
	if err != nil {
		return err
	}
	if problems := completed.Validate(); len(problems) > 0 {
		return fmt.Errorf("kube-apiserver's flags: %v", problems)
	}
	config, err := apiserver.NewConfig(completed)
	if err != nil {
		return err
	}
	complete, err := config.Complete()
	if err != nil {
		return err
	}
	chain, err := apiserver.CreateServerChain(complete)
	if err != nil {
		return err
	}
	handler := chain.GenericAPIServer.Handler
	kubernetes := handler.FullHandlerChain
	handler.FullHandlerChain = wrap(http.HandlerFunc(kubernetes.ServeHTTP))
	prepared, err := chain.PrepareRun()
	if err != nil {
		return err
	}
	return prepared.Run(ctx)
}
