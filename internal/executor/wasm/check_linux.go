package wasm

import (
	"errors"
	"fmt"
	"slices"

	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/executor/wasm/instrument"
)

// Check says why executors refuse program under that memory limit, without running it; nil if they do not. A
// memory of 0 stands for any. Executors of the same rules find the same.
func Check(program []byte, memory uint64) error {
	if len(program) > executor.MaxProgram {
		return fmt.Errorf("%w: %d bytes, at most %d", errModule, len(program), executor.MaxProgram)
	}
	_, p, err := prepare(program)
	if err == nil && memory > 0 && p.Memory > memory {
		err = errors.New(tooLittle(p.Memory, memory))
	}
	return err
}

// tooLittle is why a program that begins with so much memory does not run within limit, both in bytes.
func tooLittle(begins, limit uint64) string {
	return fmt.Sprintf("the program begins with %d bytes of memory, the limit is %d", begins, limit)
}

// prepare checks and instruments a program, and says what it costs before it runs.
func prepare(program []byte) (module []byte, p price, err error) {
	module, info, err := instrument.Module(program, instrument.Options{MaxModule: executor.MaxProgram, Imports: checkImport})
	if err != nil {
		return nil, p, err
	}
	plain := func(name string) bool {
		return slices.ContainsFunc(info.Exports,
			func(x instrument.Export) bool { return x.Name == name && x.Kind == 0 && x.Plain })
	}
	if !startable(plain) {
		return nil, p, errNoStart
	}
	return module, price{Memory: uint64(info.MinPages) << 16, Code: info.Code, Begin: info.Begin,
		Effort: info.Effort}, nil
}
