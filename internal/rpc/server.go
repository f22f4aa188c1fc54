package rpc

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	geth "github.com/ethereum/go-ethereum/rpc"
	"github.com/gorilla/websocket"

	"github.com/crowdcompute/crowd/internal/atomicfile"
)

// Config of a server. Dir and nothing else is needed.
type Config struct {
	Dir     string   // the node's folder: made and kept at mode 0700; token, socket and uploads lie in it
	Addr    string   // TCP address for HTTP and WebSocket; default 127.0.0.1:0
	Public  bool     // allows an Addr that is not loopback
	Hosts   []string // names by which clients may call besides IP addresses and localhost
	Origins []string // web pages that may call, as https://example.org; default none
	Uploads UploadBounds
	Log     *slog.Logger // default: discards
}

func (c Config) withDefaults() Config {
	if c.Addr == "" {
		c.Addr = "127.0.0.1:0"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Uploads = c.Uploads.withDefaults()
	return c
}

// Validate reports everything that is wrong with c at once.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("dir: none given"))
	}
	host, _, err := net.SplitHostPort(c.Addr)
	switch {
	case err != nil:
		errs = append(errs, fmt.Errorf("addr: %w", err))
	case !c.Public && !isLoopback(host):
		errs = append(errs, fmt.Errorf("addr %s: reachable from other machines, which must be allowed explicitly", c.Addr))
	}
	return errors.Join(errs...)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// How long the server waits, and for what.
const (
	headerTimeout = 10 * time.Second
	readTimeout   = time.Minute     // for a whole request
	writeTimeout  = 5 * time.Minute // for work and answer: finishing a large upload hashes it
	idleTimeout   = 2 * time.Minute
	stopTimeout   = 2 * time.Second // for answers under way when the server stops

	maxConns         = 256      // open at the same time, per listener
	maxBatch         = 100      // calls in a batch
	maxBatchResponse = 16 << 20 // bytes
)

// Server serves one Backend. Make it with NewServer, then Listen, then Run.
type Server struct {
	// set once
	cfg     Config
	backend Backend
	rpc     *geth.Server
	life    context.Context // ends when Run does
	end     context.CancelFunc
	streams atomic.Int64 // open subscriptions

	// set by Listen
	token   [sha256.Size]byte // hash of it
	address Endpoint
	tcp     net.Listener
	unix    net.Listener
	uploads *uploads

	children sync.WaitGroup // connections and subscriptions
}

// NewServer checks the configuration and starts nothing.
func NewServer(cfg Config, b Backend) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("rpc config: %w", err)
	}
	s := &Server{cfg: cfg.withDefaults(), backend: b, rpc: geth.NewServer()}
	s.life, s.end = context.WithCancel(context.Background())
	s.rpc.SetBatchLimits(maxBatch, maxBatchResponse)
	s.rpc.SetHTTPBodyLimit(maxMessage)
	if err := s.register(); err != nil {
		return nil, err
	}
	return s, nil
}

// Listen opens the socket and the port, so that clients can connect from now on;
// they are answered when Run runs. It fails with Conflict when another server
// serves the same folder.
func (s *Server) Listen() (err error) {
	dir, err := openDir(s.cfg.Dir)
	if err != nil {
		return err
	}
	token, err := ensureToken(dir)
	if err != nil {
		return err
	}
	s.token = sha256.Sum256([]byte(token))
	if s.unix, err = listenSocket(dir); err != nil {
		return err
	}
	if s.tcp, err = net.Listen("tcp", s.cfg.Addr); err != nil {
		return errors.Join(fmt.Errorf("listen on %s: %w", s.cfg.Addr, err), s.unix.Close())
	}
	s.address = Endpoint{Socket: socketPath(dir), URL: "http://" + s.tcp.Addr().String(), Token: token}
	if err := atomicfile.Write(urlPath(dir), []byte(s.address.URL+"\n"), 0o600); err != nil {
		return errors.Join(err, s.unix.Close(), s.tcp.Close())
	}
	if s.uploads, err = openUploads(uploadsPath(dir), s.cfg.Uploads, s.backend); err != nil {
		return errors.Join(err, s.unix.Close(), s.tcp.Close())
	}
	return nil
}

// Endpoint is how to reach the server; it is known after Listen.
func (s *Server) Endpoint() Endpoint { return s.address }

// Run serves until ctx ends, then cancels the calls under way, gives their answers
// a moment to leave, and returns when everything that it started has ended.
func (s *Server) Run(ctx context.Context) error {
	web := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 2) // one for each listener
	s.children.Go(func() { failed <- web.Serve(limitConns(s.tcp, maxConns)) })
	s.children.Go(func() { failed <- s.serveSocket(limitConns(s.unix, maxConns)) })

	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	s.end() // calls and subscriptions end
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if web.Shutdown(stop) != nil {
		web.Close()
	}
	s.unix.Close() // removes the socket
	s.rpc.Stop()
	s.children.Wait()
	s.uploads.close()
	os.Remove(urlPath(s.cfg.Dir))
	return err
}

func (s *Server) serveSocket(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return fmt.Errorf("accept on socket: %w", err)
		}
		s.children.Go(func() { s.rpc.ServeCodec(geth.NewCodec(&socketConn{Conn: conn}), 0) })
	}
}

// ServeHTTP lets in those who call us by our own name, from no foreign web page,
// and hold the token; in that order, so that a stranger learns little.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	switch {
	case s.life.Err() != nil:
		refuse(w, http.StatusServiceUnavailable, Errorf(Unavailable, "the node is stopping"))
	case !s.ourHost(r.Host):
		refuse(w, http.StatusForbidden, Errorf(Forbidden, "host %.100q is not this node", r.Host))
	case !s.ourOrigin(r.Header["Origin"]):
		refuse(w, http.StatusForbidden, Errorf(Forbidden, "web pages of another origin may not call this node"))
	case !s.holdsToken(r.Header.Get("Authorization")):
		w.Header().Set("WWW-Authenticate", "Bearer")
		refuse(w, http.StatusUnauthorized, Errorf(Unauthorized, "no valid token"))
	case websocket.IsWebSocketUpgrade(r):
		s.serveWebSocket(w, r)
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		refuse(w, http.StatusMethodNotAllowed, Errorf(BadRequest, "method %.20q", r.Method).WithHint("POST a JSON-RPC 2.0 request"))
	default:
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxMessage))
		var big *http.MaxBytesError
		switch {
		case errors.As(err, &big):
			refuse(w, http.StatusRequestEntityTooLarge, Errorf(TooLarge, "request of more than %d bytes", maxMessage))
			return
		case err != nil:
			refuse(w, http.StatusBadRequest, Errorf(BadRequest, "read request: %w", err))
			return
		}
		body = renameDiscover(body)
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		s.rpc.ServeHTTP(w, r)
	}
}

// ourHost defends against DNS rebinding: a page that makes its own name point to
// us sends that name. An IP address cannot be rebound.
func (s *Server) ourHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	return host == "localhost" || net.ParseIP(host) != nil || slices.ContainsFunc(s.cfg.Hosts, func(ours string) bool {
		return strings.EqualFold(host, ours)
	})
}

func (s *Server) ourOrigin(origin []string) bool {
	return len(origin) == 0 || len(origin) == 1 && slices.Contains(s.cfg.Origins, origin[0])
}

// holdsToken compares hashes: in constant time whatever the lengths.
func (s *Server) holdsToken(header string) bool {
	scheme, token, _ := strings.Cut(header, " ")
	given := sha256.Sum256([]byte(strings.TrimSpace(token)))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(given[:], s.token[:]) == 1
}

func (s *Server) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	up := websocket.Upgrader{
		CheckOrigin: func(*http.Request) bool { return true }, // done above
		Error: func(w http.ResponseWriter, _ *http.Request, status int, err error) {
			refuse(w, status, Errorf(BadRequest, "%w", err))
		},
	}
	conn, err := up.Upgrade(w, r, nil)
	if err != nil {
		return // Error has answered
	}
	conn.SetReadLimit(maxMessage) // one that is longer is answered with close code 1009
	s.children.Go(func() { s.rpc.ServeCodec(geth.NewCodec(&webSocketConn{Conn: conn}), 0) })
}

// refuse answers before JSON-RPC has begun, in its form all the same.
func refuse(w http.ResponseWriter, status int, e *Error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(refusal(e))
}

func refusal(e *Error) any {
	return struct {
		Version string     `json:"jsonrpc"`
		ID      *int       `json:"id"`
		Error   *wireError `json:"error"`
	}{Version: "2.0", Error: atBorder("call node", e).wire()}
}

// limitConns bounds the open connections of l: further ones wait in the kernel's queue.
func limitConns(l net.Listener, n int) net.Listener {
	return &limitedListener{Listener: l, slots: make(chan struct{}, n), done: make(chan struct{})}
}

type limitedListener struct {
	net.Listener
	slots chan struct{} // capacity: the connections that may be open
	once  sync.Once
	done  chan struct{}
}

func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitedConn{Conn: conn, free: sync.OnceFunc(func() { <-l.slots })}, nil
}

func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	free func()
}

func (c *limitedConn) Close() error {
	defer c.free()
	return c.Conn.Close()
}
