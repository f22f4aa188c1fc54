package programs

import (
	"bytes"
	"image/png"
	"testing"
)

func TestPhoto_IsAPicture(t *testing.T) {
	p, err := png.Decode(bytes.NewReader(Photo))
	if err != nil || p.Bounds().Dx() < 256 {
		t.Errorf("got %v, want a picture of some size", err)
	}
}
