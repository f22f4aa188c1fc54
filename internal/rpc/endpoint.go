package rpc

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/crowdcompute/crowd/internal/atomicfile"
)

// Endpoint is a way to a node. The socket is preferred where there is one.
type Endpoint struct {
	Socket string `json:"socket,omitempty"` // path of a Unix socket
	URL    string `json:"url,omitempty"`    // http://, https://, ws:// or wss://
	Token  string `json:"-"`                // for URL
}

func (e Endpoint) String() string {
	if e.Socket != "" {
		return e.Socket
	}
	return e.URL
}

func socketPath(dir string) string  { return filepath.Join(dir, "rpc.sock") }
func urlPath(dir string) string     { return filepath.Join(dir, "rpc.url") }
func tokenPath(dir string) string   { return filepath.Join(dir, "token") }
func uploadsPath(dir string) string { return filepath.Join(dir, "uploads") }

// Discover finds the node whose folder is dir. It fails with Unavailable when
// none runs there, and with Forbidden when this user may not look.
func Discover(dir string) (Endpoint, error) {
	gone := func() error {
		e := Errorf(Unavailable, "no node is running at %s", dir)
		return e.WithHint("start one with: crowd up")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Endpoint{}, err
	}
	end := Endpoint{Socket: socketPath(abs)}
	if _, err := os.Stat(end.Socket); errors.Is(err, fs.ErrPermission) {
		return Endpoint{}, Errorf(Forbidden, "the folder %s belongs to another user", dir).WithHint("work as that user, or " +
			"ask for the node's URL and token, and give them with --node URL and --token-file FILE")
	}
	if !serving(end.Socket) {
		return Endpoint{}, gone()
	}
	if url, err := os.ReadFile(urlPath(abs)); err == nil {
		end.URL = strings.TrimSpace(string(url))
	}
	if end.Token, err = ReadToken(tokenPath(abs)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Endpoint{}, err
	}
	return end, nil
}

// serving reports whether somebody accepts connections on the socket.
func serving(socket string) bool {
	conn, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// openDir makes the node's folder, or makes it private.
func openDir(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("node folder: %w", err)
	}
	if err := os.MkdirAll(abs, 0o700); err != nil {
		return "", fmt.Errorf("make node folder: %w", err)
	}
	if err := os.Chmod(abs, 0o700); err != nil {
		return "", fmt.Errorf("make node folder private: %w", err)
	}
	return abs, nil
}

const tokenBytes = 32

// ensureToken reads the folder's token, made on the first run.
func ensureToken(dir string) (string, error) {
	token, err := ReadToken(tokenPath(dir))
	if !errors.Is(err, fs.ErrNotExist) {
		return token, err
	}
	raw := make([]byte, tokenBytes)
	rand.Read(raw)
	token = hex.EncodeToString(raw)
	return token, atomicfile.Write(tokenPath(dir), []byte(token+"\n"), 0o600)
}

// ReadToken reads a token file. It refuses one that others can read.
func ReadToken(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return "", Errorf(Forbidden, "token %s: others can read it (mode %04o)", path, mode).
			WithHint("remove it, so that the next start makes a new one; or trust it still: chmod 600 %s", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if raw, err := hex.DecodeString(token); err != nil || len(raw) != tokenBytes {
		return "", Errorf(BadRequest, "token %s: not %d hex digits", path, 2*tokenBytes).
			WithHint("remove it: the next start of the node makes a new one")
	}
	return token, nil
}

// maxSocketPath is what fits into sun_path on every system that we run on.
const maxSocketPath = 103

// listenSocket opens the folder's socket. The folder's mode keeps others out from
// the first moment, the socket's from then on.
func listenSocket(dir string) (net.Listener, error) {
	path := socketPath(dir)
	if len(path) > maxSocketPath {
		return nil, Errorf(BadRequest, "socket %s: a path of %d bytes, at most %d", path, len(path), maxSocketPath).
			WithHint("use a folder with a shorter path")
	}
	if serving(path) {
		return nil, Errorf(Conflict, "another node is running at %s", dir).
			WithHint("use it, stop it, or choose another folder with --dir")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove stale socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("make socket private: %w", err), l.Close())
	}
	return l, nil
}
