"""
Certificates, keys and the TLS connections made with them.

    - L{tristunnel.tls.pem} reads certificates and keys from files, with
      errors that people can act upon.
    - L{tristunnel.tls.certificates} makes a self-signed certificate and knows
      fingerprints.
    - L{tristunnel.tls.contexts} holds the one TLS policy of the project.
    - L{tristunnel.tls.server_context} serves one certificate from files.
    - L{tristunnel.tls.directory} serves the certificates of a directory, chosen
      by the name that the client asks for.
    - L{tristunnel.tls.client_context} verifies servers, and says why one is
      refused.
    - L{tristunnel.tls.explanation} turns a failed handshake into a sentence, at
      either end.
    - L{tristunnel.dataplane.tls} puts TLS over any server endpoint.
"""
