package chain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

	cmtlog "github.com/cometbft/cometbft/libs/log"
)

// engineLog gives CometBFT's talk to slog, one level quieter than it thinks of itself.
// It is also how one learns that consensus has halted: CometBFT only logs that.
type engineLog struct {
	log    *slog.Logger
	ending *atomic.Bool // from then on its errors are noise: parts that miss each other
	halted func(error)
}

func (l engineLog) put(level slog.Level, msg string, kv []any) {
	if l.log.Enabled(context.Background(), level) {
		l.log.Log(context.Background(), level, msg, kv...)
	}
}

func (l engineLog) Debug(msg string, kv ...any) { l.put(slog.LevelDebug-4, msg, kv) }
func (l engineLog) Info(msg string, kv ...any)  { l.put(slog.LevelDebug, msg, kv) }
func (l engineLog) Warn(msg string, kv ...any)  { l.put(slog.LevelInfo, msg, kv) }

func (l engineLog) Error(msg string, kv ...any) {
	if strings.HasPrefix(msg, "CONSENSUS FAILURE") {
		err := errors.New("consensus halted")
		if len(kv) > 1 {
			err = fmt.Errorf("consensus halted: %v", kv[1])
		}
		l.halted(err)
	}
	level := slog.LevelWarn
	if l.ending.Load() {
		level = slog.LevelDebug
	}
	l.put(level, msg, kv)
}

func (l engineLog) With(kv ...any) cmtlog.Logger {
	return engineLog{log: l.log.With(kv...), ending: l.ending, halted: l.halted}
}
