"""
The service interface as remote calls, without a transport.

    - L{tristunnel.jsonrpc.calls} calls a published method by its name.
    - L{tristunnel.jsonrpc.dispatcher} answers JSON-RPC 2.0, and
      L{tristunnel.jsonrpc.pending} is its asking side.
    - L{tristunnel.http} carries it, and XML-RPC, over HTTP.
"""
