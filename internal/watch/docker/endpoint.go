package docker

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/moby/client"
)

// Endpoint is where an engine is and how it is talked to.
type Endpoint struct {
	Host string // "unix:///var/run/docker.sock", "tcp://127.0.0.1:2376"
	From string // what named it, for messages: "--docker-host", "DOCKER_HOST", `the context "lab"`, "Docker's default"
	TLS  *tls.Config
}

// isDefault tells whether nobody named the endpoint: then it is no news that nothing is there.
func (e Endpoint) isDefault() bool { return e.From == fromDefault }

const fromDefault = "Docker's default"

// FindEndpoint finds the engine by the rules of the docker program: the flag (host, "" where it wasn't given), else
// DOCKER_HOST, else DOCKER_CONTEXT, else currentContext in config.json of DOCKER_CONFIG or ~/.docker, else the default.
//
// See https://docs.docker.com/engine/manage-resources/contexts/.
func FindEndpoint(host string) (Endpoint, error) {
	for _, named := range []Endpoint{
		{Host: host, From: "--docker-host"},
		{Host: os.Getenv(client.EnvOverrideHost), From: client.EnvOverrideHost},
	} {
		if named.Host != "" {
			return fromEnv(named)
		}
	}
	name, err := currentContext()
	if err != nil {
		return Endpoint{}, err
	}
	if name == "" || name == "default" {
		return fromEnv(Endpoint{Host: client.DefaultDockerHost, From: fromDefault})
	}
	return fromContext(name)
}

// fromEnv completes an endpoint that no context describes.
func fromEnv(e Endpoint) (Endpoint, error) {
	e, err := checked(e)
	if err != nil || !strings.HasPrefix(e.Host, "tcp://") || os.Getenv(client.EnvTLSVerify) == "" {
		return e, err
	}
	dir := os.Getenv(client.EnvOverrideCertPath)
	if dir == "" {
		dir = configDir()
	}
	e.TLS, err = tlsConfig(dir, false)
	return e, err
}

// checked normalizes the host and refuses what can't be this host's engine.
func checked(e Endpoint) (Endpoint, error) {
	scheme, _, ok := strings.Cut(e.Host, "://")
	switch {
	case ok && (scheme == "unix" || scheme == "tcp"):
	case ok && scheme == "http":
		e.Host = "tcp" + strings.TrimPrefix(e.Host, "http")
	case ok:
		return e, fmt.Errorf("%s of %s is not an engine on this host: name one by unix:// or tcp://", e.Host, e.From)
	case strings.HasPrefix(e.Host, "/"):
		e.Host = "unix://" + e.Host
	default:
		e.Host = "tcp://" + e.Host
	}
	return e, nil
}

func configDir() string {
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/root" // as a unit of systemd, which has no HOME
	}
	return filepath.Join(home, ".docker")
}

func currentContext() (string, error) {
	if name := os.Getenv("DOCKER_CONTEXT"); name != "" {
		return name, nil
	}
	var config struct {
		CurrentContext string `json:"currentContext"`
	}
	err := readJSON(filepath.Join(configDir(), "config.json"), &config)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return config.CurrentContext, err
}

// fromContext reads a context as the docker program stores it: in a folder named by the SHA-256 of the context's name.
func fromContext(name string) (Endpoint, error) {
	sum := sha256.Sum256([]byte(name))
	digest := hex.EncodeToString(sum[:])
	var meta struct {
		Endpoints map[string]struct {
			Host          string
			SkipTLSVerify bool
		}
	}
	if err := readJSON(filepath.Join(configDir(), "contexts", "meta", digest, "meta.json"), &meta); err != nil {
		return Endpoint{}, fmt.Errorf("the Docker context %q: %w", name, err)
	}
	docker, ok := meta.Endpoints["docker"]
	if !ok || docker.Host == "" {
		return Endpoint{}, fmt.Errorf("the Docker context %q names no engine", name)
	}
	e, err := checked(Endpoint{Host: docker.Host, From: fmt.Sprintf("the context %q", name)})
	dir := filepath.Join(configDir(), "contexts", "tls", digest, "docker")
	if _, statErr := os.Stat(dir); err != nil || statErr != nil {
		return e, err
	}
	e.TLS, err = tlsConfig(dir, docker.SkipTLSVerify)
	return e, err
}

// tlsConfig reads ca.pem, cert.pem and key.pem of a folder, the last two only where they are there.
func tlsConfig(dir string, skipVerify bool) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: skipVerify}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	switch {
	case err == nil:
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("%s holds no certificate", filepath.Join(dir, "ca.pem"))
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if errors.Is(err, fs.ErrNotExist) {
		return config, nil
	}
	config.Certificates = []tls.Certificate{pair}
	return config, err
}

func readJSON(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
