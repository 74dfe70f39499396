package settings

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// ParseURL parses the URL of a store without ever repeating it in an error: it may hold
// a password.
func ParseURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		// What stands where a port belongs may be a password whose host is missing.
		var ue *url.Error
		if errors.As(err, &ue) && !strings.Contains(raw, "@") && !strings.Contains(ue.Err.Error(), "port") {
			return nil, fmt.Errorf("cannot be parsed: %w", ue.Err)
		}
		return nil, errors.New("cannot be parsed")
	}
	if u.Scheme == "" {
		return nil, errors.New(`has no scheme; want for example "memory:" or "redis://localhost:6379"`)
	}
	return u, nil
}
