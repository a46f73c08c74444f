"""
The service interface as remote calls: JSON-RPC and XML-RPC.

    - L{tristunnel.rpc.calls} calls a published method by its name.
    - L{tristunnel.rpc.jsonrpc} answers JSON-RPC 2.0 without a transport, and
      L{tristunnel.rpc.pending} is its asking side.
    - L{tristunnel.http.site}, L{tristunnel.http.resource} and
      L{tristunnel.http.origin} are HTTP: limits, refusals, and pages from
      elsewhere.
    - L{tristunnel.http.xmlrpc} is the same methods as XML-RPC.
    - L{tristunnel.rpc.caller} is the command C{python -m tristunnel.rpc}.
"""
