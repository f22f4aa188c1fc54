package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"
)

// sample is an opaque picture with gradients and edges.
func sample(w, h int) image.Image {
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			img.SetNRGBA(x, y, color.NRGBA{uint8(5 * x), uint8(x * y), uint8(200 * (x / 16 % 2)), 255})
		}
	}
	return img
}

func pngOf(t testing.TB, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// header is the beginning of a PNG that claims to be w x h.
func header(w, h uint32) []byte {
	ihdr := []byte("IHDR")
	ihdr = binary.BigEndian.AppendUint32(ihdr, w)
	ihdr = binary.BigEndian.AppendUint32(ihdr, h)
	ihdr = append(ihdr, 8, 2, 0, 0, 0)
	out := append([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0d"), ihdr...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(ihdr))
}

func TestRunRefuses(t *testing.T) {
	good := pngOf(t, sample(8, 8))
	for _, c := range []struct {
		name  string
		args  []string
		stdin []byte
		code  int
		says  string
	}{
		{"unknown flag", []string{"--sharpen"}, good, 2, "not defined: -sharpen"},
		{"no number", []string{"--radius", "big"}, good, 2, `invalid value "big"`},
		{"negative radius", []string{"--radius", "-1"}, good, 2, "--radius -1: want 0 to 48"},
		{"large radius", []string{"--radius", "49"}, good, 2, "--radius 49: want 0 to 48"},
		{"no edge", []string{"--edge", "0"}, good, 2, "--edge 0: want 1 to 255"},
		{"no pass", []string{"--passes", "0"}, good, 2, "--passes 0: want 1 to 16"},
		{"a file name", []string{"photo.png"}, good, 2, `unexpected "photo.png"`},
		{"nothing", nil, nil, 1, "no PNG or JPEG"},
		{"garbage", nil, []byte("a picture, honestly"), 1, "no PNG or JPEG"},
		{"truncated", nil, good[:len(good)/2], 1, "decode picture"},
		{"too large", nil, header(1<<16, 1<<16), 1, "65536 x 65536"},
		{"too thin", nil, header(maxPixels, 1), 1, "67108864 x 1"},
		{"too tall", nil, header(1, maxPixels), 1, "1 x 67108864"},
		{"overflowing", nil, header(1<<31-1, 1<<31-1), 1, ""},
		{"no pixels", nil, header(0, 5), 1, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, talk bytes.Buffer
			if code := run(c.args, bytes.NewReader(c.stdin), &out, &talk); code != c.code {
				t.Errorf("got exit code %d want %d", code, c.code)
			}
			if !strings.Contains(talk.String(), c.says) {
				t.Errorf("got stderr %q want it to contain %q", talk.String(), c.says)
			}
			if out.Len() > 0 {
				t.Errorf("got %d bytes on stdout, want none", out.Len())
			}
		})
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestRunReportsFailedWrite(t *testing.T) {
	var talk bytes.Buffer
	if code := run(nil, bytes.NewReader(pngOf(t, sample(4, 4))), brokenPipe{}, &talk); code != 1 {
		t.Errorf("got exit code %d want 1", code)
	}
	if !strings.Contains(talk.String(), "write picture: broken pipe") {
		t.Errorf("got stderr %q want the failed write", talk.String())
	}
}

func TestRunOfRadiusZeroKeepsPixels(t *testing.T) {
	want := sample(33, 9)
	var out bytes.Buffer
	if code := run([]string{"--radius", "0"}, bytes.NewReader(pngOf(t, want)), &out, io.Discard); code != 0 {
		t.Fatalf("got exit code %d want 0", code)
	}
	got, err := png.Decode(&out)
	if err != nil {
		t.Fatal(err)
	}
	if got.Bounds() != want.Bounds() {
		t.Fatalf("got %v want %v", got.Bounds(), want.Bounds())
	}
	for y := range 9 {
		for x := range 33 {
			if g, w := color.NRGBAModel.Convert(got.At(x, y)), want.At(x, y); g != w {
				t.Fatalf("pixel (%d, %d): got %v want %v", x, y, g, w)
			}
		}
	}
}

func TestRunReadsJPEGAndTellsProgress(t *testing.T) {
	var in, out, talk bytes.Buffer
	if err := jpeg.Encode(&in, sample(40, 50), nil); err != nil {
		t.Fatal(err)
	}
	if code := run([]string{"--passes", "2", "--radius", "2"}, &in, &out, &talk); code != 0 {
		t.Fatalf("got exit code %d want 0: %s", code, &talk)
	}
	if c, err := png.DecodeConfig(&out); err != nil || c.Width != 40 || c.Height != 50 {
		t.Errorf("got a PNG of %d x %d, error %v; want 40 x 50", c.Width, c.Height, err)
	}
	lines := strings.Split(strings.TrimSpace(talk.String()), "\n")
	if len(lines) != 20 || lines[0] != "row 5/100" || lines[19] != "row 100/100" {
		t.Errorf("got %d progress lines %q, want 20 from row 5/100 to row 100/100", len(lines), lines)
	}
}

// What a provider's sandbox computes is what the owner could have computed alone.
func TestWasmWritesTheSameBytes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "blur.wasm")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", file, ".")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if msg, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build for wasip1: %v\n%s", err, msg)
	}
	module, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"--radius", "3", "--passes", "2"}
	in := pngOf(t, sample(61, 47))
	var want, got, wantTalk, gotTalk bytes.Buffer
	if code := run(args, bytes.NewReader(in), &want, &wantTalk); code != 0 {
		t.Fatalf("native: got exit code %d want 0: %s", code, &wantTalk)
	}

	r := wazero.NewRuntime(t.Context())
	defer r.Close(t.Context())
	wasi_snapshot_preview1.MustInstantiate(t.Context(), r)
	_, err = r.InstantiateWithConfig(t.Context(), module, wazero.NewModuleConfig().
		WithArgs(append([]string{"blur"}, args...)...).
		WithStdin(bytes.NewReader(in)).WithStdout(&got).WithStderr(&gotTalk))
	if exit, ok := errors.AsType[*sys.ExitError](err); err != nil && (!ok || exit.ExitCode() != 0) {
		t.Fatalf("wasm: %v: %s", err, &gotTalk)
	}
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("stdout: got %d bytes in wasm that differ from the %d native ones", got.Len(), want.Len())
	}
	if gotTalk.String() != wantTalk.String() {
		t.Errorf("stderr: got %q want %q", &gotTalk, &wantTalk)
	}
}

// Whatever is on stdin, decode returns a picture with all its pixels or an error.
func FuzzDecode(f *testing.F) {
	f.Add(pngOf(f, sample(9, 5)))
	f.Add(header(3, 3))
	var b bytes.Buffer
	if err := jpeg.Encode(&b, sample(9, 5), nil); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, _, err := image.DecodeConfig(bytes.NewReader(data)); err == nil && c.Width > 1<<14/max(c.Height, 1) {
			t.Skip("allowed, but too much memory for a fuzzer")
		}
		p, err := decode(bytes.NewReader(data))
		if err != nil {
			return
		}
		if p.w < 1 || p.h < 1 || len(p.px) != p.w*p.h {
			t.Fatalf("got %d pixels for %d x %d", len(p.px), p.w, p.h)
		}
		for i, q := range p.px {
			if a := q >> 48; q&^0x00ff00ff_00ff00ff != 0 || q&255 > a || q>>16&255 > a || q>>32&255 > a {
				t.Fatalf("pixel %d: %016x is no premultiplied colour", i, q)
			}
		}
	})
}
