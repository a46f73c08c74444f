"""
The service interface as remote calls, without a transport.

    - L{tristunnel.rpc.calls} calls a published method by its name.
    - L{tristunnel.rpc.jsonrpc} answers JSON-RPC 2.0, and L{tristunnel.rpc.pending}
      is its asking side.
    - L{tristunnel.http} carries it, and XML-RPC, over HTTP.
    - C{python -m tristunnel.rpc} is the command in L{tristunnel.cli.call}.
"""
