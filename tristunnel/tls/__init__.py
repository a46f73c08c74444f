"""
Certificates, keys and the TLS connections made with them.

    - L{tristunnel.tls.pem} reads certificates and keys from files, with
      errors that people can act upon.
    - L{tristunnel.tls.certificates} makes a self-signed certificate and knows
      fingerprints.
    - L{tristunnel.util.files} reads what callers write for files.
    - L{tristunnel.tls.contexts} holds the one TLS policy of the project.
    - L{tristunnel.tls.watch} notices that files changed.
    - L{tristunnel.tls.server_context} serves one certificate from files.
    - L{tristunnel.tls.tree} finds the certificates below a directory, and
      L{tristunnel.tls.directory} serves them, chosen by the name that the
      client asks for.
    - L{tristunnel.tls.client_context} verifies servers, and
      L{tristunnel.tls.refusal} says why one is refused.
    - L{tristunnel.tls.explanation} turns a failed handshake into a sentence, at
      either end.
    - L{tristunnel.tls.endpoint} puts TLS over any server endpoint.
"""
