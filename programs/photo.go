// Package programs carries the picture on which the sample programs are shown.
// The programs themselves are commands in the folders below.
package programs

import _ "embed" // for the picture

// Photo is blur/photo.png; blur/PHOTO.md says where it comes from.
//
//go:embed blur/photo.png
var Photo []byte
