package lab

import (
	"fmt"
	"os"
	"os/exec"

	"github.com/sluice-net/sluice/bench/netlab"
)

// Exec replaces this process by a command inside a pod, the host or an
// external host of the lab, so that terminal, signals and exit code are the
// command's own. It returns only if that was not possible.
func Exec(s *State, target string, argv []string) error {
	name, err := s.Netns(target)
	if err != nil {
		return err
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return fmt.Errorf("find command: %w", err)
	}
	ns, err := netlab.OpenNamespace(name)
	if err != nil {
		return err
	}
	return ns.Exec(path, argv, os.Environ())
}
