package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// maxFrames bounds what one capture keeps.
const maxFrames = 2000

// packetSocket is a socket for whole frames on one device. Its protocol is in network order; 0 receives nothing.
func packetSocket(device string, protocol uint16) (fd int, err error) {
	link, err := net.InterfaceByName(device)
	if err != nil {
		return -1, fmt.Errorf("device %s: %w", device, err)
	}
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: link.Index}); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func sendFrames(s Send) error {
	fd, err := packetSocket(s.Device, 0)
	if err != nil {
		return err
	}
	for i, frame := range s.Frames {
		if _, err := unix.Write(fd, frame); err != nil {
			return errors.Join(fmt.Errorf("frame %d: %w", i, err), unix.Close(fd))
		}
	}
	return unix.Close(fd)
}

func capture(ctx context.Context, c Capture, began func()) (CaptureResult, error) {
	const allProtocols = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8
	fd, err := packetSocket(c.Device, allProtocols)
	if err != nil {
		return CaptureResult{}, err
	}
	defer unix.Close(fd)
	wake := unix.NsecToTimeval((20 * time.Millisecond).Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wake); err != nil {
		return CaptureResult{}, err
	}
	began()
	var r CaptureResult
	buf := make([]byte, 65536)
	for {
		// What is in the queue when the job is told to stop still counts: the wait for an empty queue ends it.
		n, err := unix.Read(fd, buf)
		if err == nil && len(r.Frames) < maxFrames {
			r.Frames = append(r.Frames, append([]byte(nil), buf[:n]...))
		}
		if err != nil && ctx.Err() != nil {
			return r, nil
		}
		if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return r, err
		}
	}
}
