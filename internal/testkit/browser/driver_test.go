//go:build browser

package browser

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"quaywall/internal/testkit/netns"
)

// window is a browser's window.
type window struct {
	t       testing.TB
	session string // its URL
}

var started = regexp.MustCompile(`started successfully on port (\d+)`)

// open starts a browser.
func open(t testing.TB) *window {
	t.Helper()
	netns.Tool(t, "chromium")
	netns.Tool(t, "chromedriver")
	driver := exec.Command("chromedriver", "--port=0")
	out, err := driver.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := driver.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		driver.Process.Kill()
		driver.Wait()
	})
	var port string
	lines := bufio.NewScanner(out)
	for port == "" && lines.Scan() {
		if m := started.FindStringSubmatch(lines.Text()); m != nil {
			port = m[1]
		}
	}
	go io.Copy(io.Discard, out)
	w := &window{t: t, session: "http://127.0.0.1:" + port + "/session"}
	var answer struct {
		SessionID string `json:"sessionId"`
	}
	w.post("", map[string]any{"capabilities": map[string]any{"alwaysMatch": map[string]any{
		"browserName": "chrome", "goog:loggingPrefs": map[string]string{"browser": "ALL"},
		"goog:chromeOptions": map[string]any{"args": []string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
			"--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1200,900", "--user-data-dir=" + t.TempDir()}},
	}}}, &answer)
	w.session += "/" + answer.SessionID
	t.Cleanup(func() { w.delete() })
	return w
}

// post sends a command and reads its value.
func (w *window) post(command string, body, value any) {
	w.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		w.t.Fatal(err)
	}
	response, err := http.Post(w.session+command, "application/json", bytes.NewReader(text))
	if err != nil {
		w.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err = io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		w.t.Fatalf("%s: %s %v\n%s", command, response.Status, err, text)
	}
	if value == nil {
		return
	}
	if err := json.Unmarshal(text, &struct{ Value any }{value}); err != nil {
		w.t.Fatalf("%s: %v\n%s", command, err, text)
	}
}

// delete closes the window.
func (w *window) delete() {
	request, err := http.NewRequest(http.MethodDelete, w.session, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	if response, err := http.DefaultClient.Do(request); err == nil {
		response.Body.Close()
	}
}

// visit opens a file.
func (w *window) visit(path string) {
	w.t.Helper()
	w.post("/url", map[string]string{"url": "file://" + path}, nil)
}

// eval runs a script and reads what it returns.
func (w *window) eval(value any, format string, args ...any) {
	w.t.Helper()
	w.post("/execute/sync", map[string]any{"script": fmt.Sprintf(format, args...), "args": []any{}}, value)
}

// element finds one by its selector.
func (w *window) element(selector string) string {
	w.t.Helper()
	var found map[string]string
	w.post("/element", map[string]string{"using": "css selector", "value": selector}, &found)
	for _, id := range found {
		return "/element/" + id
	}
	return ""
}

func (w *window) click(selector string) {
	w.t.Helper()
	w.post(w.element(selector)+"/click", struct{}{}, nil)
}

func (w *window) write(selector, text string) {
	w.t.Helper()
	w.post(w.element(selector)+"/value", map[string]string{"text": text}, nil)
}

// complaints are what the browser has to say about a page, and not about its own.
func (w *window) complaints() (all []string) {
	w.t.Helper()
	var entries []struct{ Level, Message string }
	w.post("/se/log", map[string]string{"type": "browser"}, &entries)
	for _, e := range entries {
		if !strings.HasPrefix(e.Message, "chrome://") {
			all = append(all, e.Level+": "+e.Message)
		}
	}
	return all
}
