package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// events are those that change networks or published ports. Checks of a container's health make events all the time,
// and aren't among them.
const events = `{"type":["container","network","daemon"],` +
	`"event":["start","die","rename","connect","disconnect","create","destroy","reload"]}`

// overlap is how far back events are asked for: the engine says that it listens a moment before it does.
const overlap = 2 * time.Second

// ErrNoAnswer is the cause of an error where List would get no answer either.
var ErrNoAnswer = errors.New("no answer from Docker")

// Watch tells of what happens at the engine at host ("" for Docker's own rules) until the connection ends. The first call
// comes when it is subscribed, so that whoever lists the engine's things then misses nothing. The error is never nil.
func Watch(ctx context.Context, host string, each func()) error {
	at, err := FindEndpoint(host)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	if sleeping(at) {
		return fmt.Errorf("%w: %s", ErrNoAnswer, problemSleeping(at))
	}
	short, cancel := context.WithTimeout(ctx, patience)
	e, err := connect(short, at)
	cancel()
	if err != nil {
		return fmt.Errorf("%w: %s", ErrNoAnswer, problem(at, err))
	}
	defer e.close()
	return e.watch(ctx, each)
}

func (e *engine) watch(ctx context.Context, each func()) error {
	query := url.Values{"filters": {events}, "since": {strconv.FormatInt(time.Now().Add(-overlap).Unix(), 10)}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.base+"/events?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	resp, err := e.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the engine answered %s to GET /events", resp.Status)
	}
	each()
	answers := json.NewDecoder(resp.Body)
	for {
		var event struct{}
		if err := answers.Decode(&event); err != nil {
			return fmt.Errorf("the engine's events ended: %w", err)
		}
		each()
	}
}
