package wasm

import (
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
)

// key names compiled code: a hash of the program and of all that shaped the code.
type key [32]byte

// build names this very program: prices and rules are in it, so that another build never runs
// code that this one made.
var build = sync.OnceValue(func() string {
	const self = "/proc/self/exe"
	if f, err := elf.Open(self); err == nil {
		defer f.Close()
		if note := f.Section(".note.go.buildid"); note != nil {
			if id, err := note.Data(); err == nil && len(id) > 16 { // more than the note's head
				return string(id)
			}
		}
	}
	i, err := os.Stat(self)
	if err != nil {
		return time.Now().String() // no old code is better than wrong code
	}
	return fmt.Sprint(i.Size(), i.ModTime())
})

const (
	// What goes beyond one of these is let go of, the oldest first.
	maxCacheBytes = 4 << 30 // on disk
	maxCacheFiles = 8192    // on disk: programs that are none, and those that are only priced, are small and have one, too
	maxOpenCode   = 64      // entries kept open, with what is only known of others
	maxOpenBytes  = 1 << 30 // of code kept open: it stays on disk although its file may have been removed
	maxPricing    = 2       // programs that are checked and priced at once
	maxSumFile    = 4 << 10
	// quickEffort is the most compiling, in nanoseconds, for which a program waits in the queue of the quick ones: what
	// compilers make hardly needs more. The others have a queue of their own, so that they hold up only each other.
	quickEffort = 8_000_000_000
)

// compilers is how many programs of each of the two queues are compiled at once.
func compilers() int { return max(2, runtime.NumCPU()/2) }

// code is a program that has been checked: compiled, or no more than priced, or the reason why it is none.
type code struct {
	file    *os.File // read-only; nil: invalid, or not compiled. Closed by its finalizer, since runs may be using it.
	size    int64
	price   price
	invalid string
}

// ready reports whether more would come of c by compiling it.
func (c *code) ready() bool { return c.file != nil || c.invalid != "" }

// sum is the file beside the code that says what belongs in it.
type sum struct {
	_       struct{} `cbor:",toarray"`
	SHA256  []byte
	Size    uint64 // 0: there is no code yet
	Price   price
	Invalid string
}

// cache keeps compiled code in one folder that only we can write. It trusts
// nobody else's code, and its own only while the checksum fits.
type cache struct {
	dir    string          // set once
	engine string          // set once
	build  string          // set once
	ctx    context.Context // set once; of compilations

	// Who waits for one of these does so until its context ends, first come first served. At most as many wait as
	// runs and batches are under way.
	pricing, quick, long chan struct{}

	fills sync.WaitGroup // compilations; grows only while a run is under way

	mu    sync.Mutex
	open  map[key]*code      // guarded by mu
	order []key              // guarded by mu; of open, oldest first
	work  map[key]*compiling // guarded by mu
}

// compiling is one compilation that several runs may wait for.
type compiling struct {
	done    chan struct{}
	waiting int // guarded by cache.mu; at 0 the work is given up
	cancel  context.CancelFunc
	code    *code
	err     error
}

func newCache(dir, engine string) (*cache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("code cache: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return nil, fmt.Errorf("code cache %s: %w", dir, err)
	}
	if st.Mode&0o077 != 0 || int(st.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("code cache %s: mode %o, owner %d: want a folder of ours with mode 700, since what is in it is run", dir, st.Mode&0o777, st.Uid)
	}
	return &cache{
		dir: dir, engine: engine, build: build(),
		pricing: make(chan struct{}, maxPricing), quick: make(chan struct{}, compilers()), long: make(chan struct{}, compilers()),
		open: map[key]*code{}, work: map[key]*compiling{},
	}, nil
}

// program opens a program's file and finds its key.
func (c *cache) program(path string) (*os.File, key, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, key{}, err
	}
	k, err := c.key(f)
	if err != nil {
		f.Close()
		return nil, key{}, fmt.Errorf("%s: %w", path, err)
	}
	return f, k, nil
}

// key reads all of f every time: no file system tells two files that follow each other
// within a tick of its clock apart, and a wrong key runs the wrong program.
func (c *cache) key(f *os.File) (key, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return key{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return key{}, errors.New("not a regular file")
	}
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%s\x00%s\x00", c.build, engineVersions[c.engine], runtime.GOARCH)
	if _, err := io.Copy(h, io.LimitReader(f, executor.MaxProgram+1)); err != nil {
		return key{}, err
	}
	return key(h.Sum(nil)), nil
}

// compiler compiles one file into another, or says with a nil code what that will cost.
type compiler func(ctx context.Context, program, code *os.File) (compiled, error)

// get returns the code for k, and compiles if it is not there: once, however many ask. A program that costs more
// before it begins than afford allows is priced, and not compiled for this one.
func (c *cache) get(ctx context.Context, k key, program string, afford func(*price) bool, compile compiler) (*code, error) {
	for {
		have, err := c.once(ctx, k, program, afford, compile)
		if err != nil || have.ready() || !afford(&have.price) {
			return have, err
		}
		// Somebody else asked first, and could not afford it.
	}
}

func (c *cache) once(ctx context.Context, k key, program string, afford func(*price) bool, compile compiler) (*code, error) {
	c.mu.Lock()
	have := c.open[k]
	if have != nil && (have.ready() || !afford(&have.price)) {
		c.mu.Unlock()
		return have, nil
	}
	w := c.work[k]
	if w == nil {
		work, cancel := context.WithCancel(c.ctx)
		w = &compiling{done: make(chan struct{}), cancel: cancel}
		c.work[k] = w
		c.fills.Add(1)
		go c.fill(work, k, w, program, have, afford, compile)
	}
	w.waiting++
	c.mu.Unlock()
	select {
	case <-w.done:
		return w.code, w.err
	case <-ctx.Done():
		c.mu.Lock()
		if w.waiting--; w.waiting == 0 {
			w.cancel()
			if c.work[k] == w {
				delete(c.work, k)
			}
		}
		c.mu.Unlock()
		return nil, &executor.Fault{Kind: executor.Cancelled, Err: context.Cause(ctx)}
	}
}

// fill loads or makes the code for k and tells those who wait. have is what is known of it: nil for nothing.
func (c *cache) fill(ctx context.Context, k key, w *compiling, program string, have *code, afford func(*price) bool, compile compiler) {
	defer c.fills.Done()
	defer w.cancel()
	if have == nil {
		have, _ = c.load(k) // not there, or spoilt: make it anew
	}
	w.code, w.err = have, nil
	if w.code == nil {
		w.code, w.err = c.create(ctx, c.pricing, k, program, func(ctx context.Context, program, _ *os.File) (compiled, error) {
			return compile(ctx, program, nil)
		})
	}
	if w.err == nil && !w.code.ready() && afford(&w.code.price) {
		queue := c.quick
		if w.code.price.Effort > quickEffort {
			queue = c.long
		}
		w.code, w.err = c.create(ctx, queue, k, program, compile)
	}
	c.mu.Lock()
	if c.work[k] == w {
		delete(c.work, k)
	}
	if w.err == nil {
		c.keep(k, w.code)
	}
	c.mu.Unlock()
	close(w.done)
}

// keep keeps a program's code open, for as long as there is room. mu is held.
func (c *cache) keep(k key, made *code) {
	c.forget(k)
	c.open[k], c.order = made, append(c.order, k)
	bytes := int64(0)
	for _, one := range c.open {
		bytes += one.size
	}
	for len(c.order) > 1 && (len(c.order) > maxOpenCode || bytes > maxOpenBytes) {
		bytes -= c.open[c.order[0]].size
		c.forget(c.order[0])
	}
}

// forget takes code out of those kept open; runs that have it go on with it. mu is held.
func (c *cache) forget(k key) {
	delete(c.open, k)
	c.order = slices.DeleteFunc(c.order, func(have key) bool { return have == k })
}

func (c *cache) path(k key, ext string) string {
	return filepath.Join(c.dir, hex.EncodeToString(k[:])+ext)
}

// load opens what is on disk and checks it; nil and nil: nothing is there.
func (c *cache) load(k key) (*code, error) {
	raw, err := readSmall(c.path(k, ".sum"), maxSumFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var s sum
	if err := crowd.Decode(raw, &s); err != nil {
		return nil, err
	}
	if s.Invalid != "" || s.Size == 0 {
		return &code{invalid: s.Invalid, price: s.Price}, nil
	}
	f, err := os.Open(c.path(k, ".code"))
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err == nil && (uint64(n) != s.Size || string(h.Sum(nil)) != string(s.SHA256)) {
		err = errors.New("checksum does not fit")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &code{file: f, size: n, price: s.Price}, nil
}

func readSmall(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s: more than %d bytes", path, most)
	}
	return b, err
}

// create makes the code, or its price, when its turn in the queue comes, and puts it on disk: the code first, then the
// sum that makes it valid.
func (c *cache) create(ctx context.Context, queue chan struct{}, k key, program string, compile compiler) (*code, error) {
	select {
	case queue <- struct{}{}:
		defer func() { <-queue }()
	case <-ctx.Done():
		return nil, &executor.Fault{Kind: executor.Cancelled, Err: ctx.Err()}
	}
	source, is, err := c.program(program)
	if err != nil {
		return nil, executor.Faultf(executor.BadSpec, "program: %w", err)
	}
	defer source.Close()
	if is != k {
		return nil, executor.Faultf(executor.BadSpec, "program %s changes while it is read", program)
	}
	tmp, err := os.CreateTemp(c.dir, "new-")
	if err != nil {
		return nil, diskFault("code cache", err)
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	made, err := compile(ctx, source, tmp)
	if err != nil {
		return nil, err
	}
	s := sum{Invalid: made.Invalid, Size: made.Size, Price: made.Price}
	if s.Size > 0 {
		h := sha256.New()
		n, err := io.Copy(h, tmp)
		if err != nil {
			return nil, diskFault("code cache", err)
		}
		if uint64(n) != made.Size {
			return nil, executor.Faultf(executor.Crashed, "worker wrote %d bytes of code and claims %d", n, made.Size)
		}
		s.SHA256 = h.Sum(nil)
		if err := os.Rename(tmp.Name(), c.path(k, ".code")); err != nil {
			return nil, diskFault("code cache", err)
		}
	}
	sumFile := tmp.Name() + ".sum"
	defer os.Remove(sumFile)
	if err := os.WriteFile(sumFile, crowd.Encode(s), 0o600); err != nil {
		return nil, diskFault("code cache", err)
	}
	if err := os.Rename(sumFile, c.path(k, ".sum")); err != nil {
		return nil, diskFault("code cache", err)
	}
	c.trim(k)
	if s.Size == 0 {
		return &code{invalid: s.Invalid, price: s.Price}, nil
	}
	f, err := os.Open(c.path(k, ".code"))
	if err != nil {
		return nil, diskFault("code cache", err)
	}
	return &code{file: f, size: int64(s.Size), price: s.Price}, nil
}

// drop forgets code that would not load.
func (c *cache) drop(k key) {
	c.mu.Lock()
	c.forget(k)
	c.mu.Unlock()
	os.Remove(c.path(k, ".sum"))
	os.Remove(c.path(k, ".code"))
}

// trim removes the oldest code, but not k, until the rest fits. What it removes is kept open no longer.
func (c *cache) trim(k key) { c.trimTo(k, maxCacheBytes, maxCacheFiles) }

func (c *cache) trimTo(k key, bytes int64, files int) {
	list, err := os.ReadDir(c.dir)
	if err != nil {
		return // nothing is removed; the next entry tries again
	}
	type item struct {
		name string
		size int64
		when int64
	}
	var items []item
	total := int64(0)
	for _, e := range list {
		if i, err := e.Info(); err == nil && i.Mode().IsRegular() {
			items = append(items, item{e.Name(), i.Size(), i.ModTime().UnixNano()})
			total += i.Size()
		}
	}
	sort.Slice(items, func(i, j int) bool { return items[i].when < items[j].when })
	for n, it := len(items), 0; it < len(items) && (total > bytes || n > files); it++ {
		name, old := items[it].name, key{}
		if len(name) < 64 || name[:64] == hex.EncodeToString(k[:]) {
			continue
		}
		if os.Remove(filepath.Join(c.dir, name)) == nil {
			total -= items[it].size
			n--
		}
		if _, err := hex.Decode(old[:], []byte(name[:64])); err == nil {
			c.mu.Lock()
			c.forget(old)
			c.mu.Unlock()
		}
	}
}
