package node

import (
	"errors"
	"fmt"
	"slices"

	"postern"
)

// hostFiles say from where the certificate of one host of a service comes.
type hostFiles struct {
	source string    // one of the SourceXxx
	files  *pemFiles // iff SourceFile
}

// sourceOf returns from where the certificate of host comes: a SourceXxx, with the
// files of SourceFile, or empty if that is not said.
func (s *service) sourceOf(host string) (string, *pemFiles) {
	if h, ok := s.hosts[host]; ok {
		return h.source, h.files
	}
	return s.Certificate, s.files
}

// openCertificates loads the certificates of SourceFile. It says in which field an
// error lies.
func (s *service) openCertificates() (field string, err error) {
	if s.files, err = s.openSource(s.Certificate, s.CertFile, s.KeyFile); err != nil {
		return certificateField(err), err
	}
	s.hosts = make(map[string]hostFiles, len(s.Hosts))
	for i, h := range s.Hosts {
		at := fmt.Sprintf("hosts[%d].", i)
		if err := postern.CheckHost(h.Host); err != nil {
			return at + "host", err
		}
		if _, twice := s.hosts[h.Host]; twice {
			return at + "host", fmt.Errorf("host %q is there twice", h.Host)
		}
		if h.Certificate == "" && h.CertFile == "" {
			return at + "certificate", fmt.Errorf("host %q: want %s, %s or %s", h.Host, SourceACME, SourceCA, SourceFile)
		}
		files, err := s.openSource(h.Certificate, h.CertFile, h.KeyFile)
		if err != nil {
			return at + certificateField(err), fmt.Errorf("host %q: %w", h.Host, err)
		}
		if files != nil {
			if err := files.cert.Leaf.VerifyHostname(h.Host); err != nil {
				return at + "cert_file", fmt.Errorf("%s: %w", h.CertFile, err)
			}
		}
		kind := h.Certificate
		if files != nil {
			kind = SourceFile
		}
		s.hosts[h.Host] = hostFiles{kind, files}
	}
	return "", nil
}

var errNoSource = fmt.Errorf("want %s, %s or %s", SourceACME, SourceCA, SourceFile)

// openSource loads certFile and keyFile, if there are any, and checks that they go
// with source.
func (s *service) openSource(source, certFile, keyFile string) (*pemFiles, error) {
	switch {
	case source != "" && !slices.Contains([]string{SourceACME, SourceCA, SourceFile}, source):
		return nil, fmt.Errorf("certificate %q: %w", source, errNoSource)
	case (certFile != "") != (keyFile != ""):
		return nil, errors.New("want both a certificate file and a key file, or neither")
	case certFile == "" && source == SourceFile:
		return nil, errors.New("want a certificate file and a key file")
	case certFile == "":
		return nil, nil
	case source != "" && source != SourceFile:
		return nil, fmt.Errorf("certificate %q and a certificate file contradict each other: %w", source, errNoSource)
	}
	return openPEMFiles(certFile, keyFile, s.log)
}

// certificateField returns in which field of a HostCertificate err lies.
func certificateField(err error) string {
	if errors.Is(err, errNoSource) {
		return "certificate"
	}
	return "cert_file"
}
