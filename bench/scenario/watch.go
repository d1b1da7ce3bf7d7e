package scenario

import (
	"fmt"
	"time"
)

// watch sees what takes CPUs from a short measurement besides what is measured.
type watch struct {
	start  time.Time
	others time.Duration
	stolen time.Duration
}

func startWatch() (w watch, err error) {
	if w.others, err = othersTime(); err != nil {
		return w, err
	}
	l, err := readLoad()
	w.stolen, w.start = l.stolen, time.Now()
	return w, err
}

// Time is counted in ticks of 10 ms, a process: in a short measurement, less than
// that can't be told from nothing.
const (
	othersNoise = 3 * tick
	stolenNoise = 2 * tick
)

// disturbed says what took more of the CPUs than a measurement bears.
func (w watch) disturbed() (string, error) {
	span := time.Since(w.start)
	l, err := readLoad()
	if err != nil {
		return "", err
	}
	others, err := othersTime()
	if err != nil {
		return "", err
	}
	return disturbedBy(span, others-w.others, l.stolen-w.stolen), nil
}

func disturbedBy(span, others, stolen time.Duration) string {
	switch {
	case stolen > max(stolenNoise, time.Duration(disturbance*float64(span))):
		return fmt.Sprintf("the hypervisor took %.2f CPUs", stolen.Seconds()/span.Seconds())
	case others > max(othersNoise, time.Duration(disturbance*float64(span))):
		return fmt.Sprintf("other processes used %.2f CPUs", others.Seconds()/span.Seconds())
	}
	return ""
}
