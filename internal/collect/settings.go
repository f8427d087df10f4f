package collect

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"quaywall/internal/watch/sockets"
)

// daemonFile is where dockerd's settings are unless a flag says otherwise.
const daemonFile = "/etc/docker/daemon.json"

// DockerSettings are the settings of this network namespace's dockerd that decide about packets, from its configuration file and
// its flags, by their names in the file: "iptables": "false". What can't be read is left out.
func DockerSettings() map[string]string {
	settings := map[string]string{}
	file := daemonFile
	var flags map[string]string
	for _, pid := range sockets.Processes() {
		if sockets.Name(pid) == "dockerd" && sameNamespace(pid) {
			flags = flagsOf(pid)
		}
	}
	if given := flags["config-file"]; given != "" {
		file = given
	}
	var inFile map[string]any
	if text, err := os.ReadFile(file); err == nil && json.Unmarshal(text, &inFile) == nil {
		for name, value := range inFile {
			switch value.(type) {
			case bool, string, float64:
				settings[name] = fmt.Sprint(value)
			}
		}
	}
	for name, value := range flags {
		settings[name] = value
	}
	return settings
}

func sameNamespace(pid int) bool {
	there, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "ns/net"))
	here, thisErr := os.Readlink("/proc/thread-self/ns/net")
	return err == nil && thisErr == nil && there == here
}

// flagsOf are the flags that a process was started with: a flag without a value is "true".
func flagsOf(pid int) map[string]string {
	flags := map[string]string{}
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil {
		return flags
	}
	words := bytes.Split(bytes.TrimRight(text, "\x00"), []byte{0})
	for i, word := range words {
		name, value, given := strings.Cut(string(word), "=")
		if !strings.HasPrefix(name, "--") {
			continue
		}
		if !given {
			value = "true"
			if i+1 < len(words) && !bytes.HasPrefix(words[i+1], []byte("-")) {
				value = string(words[i+1])
			}
		}
		flags[strings.TrimPrefix(name, "--")] = value
	}
	return flags
}
