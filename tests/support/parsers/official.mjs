// Servers of the official TypeScript SDKs: they note what they execute, by the caller's trace, and tell it at GET /.
// `node official.mjs KIND PORT`: `old` (1.12, whose own reader takes a charset at its word), `raw` (1.x, its own reader),
// `express` (1.x behind express.json(), which takes any charset and coding it knows), `v2` (2.x, both eras).
import { createServer } from 'node:http';

const [kind, port] = process.argv.slice(2);
const seen = [];

/** What answers each method, for a server of one HTTP request. */
const handlers = (trace) => {
  const note = (method, params, result) => {
    seen.push([trace, method, params.name ?? null, params.uri ?? null, params.arguments ?? null, params.ref ?? null]);
    return result;
  };
  return {
    'tools/call': ({ params }) => note('tools/call', params, { content: [] }),
    'resources/read': ({ params }) => note('resources/read', params, { contents: [], ttlMs: 0, cacheScope: 'private' }),
    'prompts/get': ({ params }) => note('prompts/get', params, { messages: [] }),
    'completion/complete': ({ params }) => note('completion/complete', params, { completion: { values: [] } }),
  };
};
const traceOf = (value) => (value ?? '').split('-')[1];
const info = [{ name: 'official', version: '1' }, { capabilities: { tools: {}, resources: {}, prompts: {}, completions: {} } }];

/** A handler of HTTP requests of the 1.x SDK in a package: a server and a transport for each. */
async function first(sdk) {
  const { Server } = await import(`${sdk}/server/index.js`);
  const { StreamableHTTPServerTransport } = await import(`${sdk}/server/streamableHttp.js`);
  const types = await import(`${sdk}/types.js`);
  const schemas = {
    'tools/call': types.CallToolRequestSchema,
    'resources/read': types.ReadResourceRequestSchema,
    'prompts/get': types.GetPromptRequestSchema,
    'completion/complete': types.CompleteRequestSchema,
  };
  return async (request, response) => {
    const server = new Server(...info);
    for (const [method, handler] of Object.entries(handlers(traceOf(request.headers.traceparent)))) {
      server.setRequestHandler(schemas[method], handler);
    }
    const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined, enableJsonResponse: true });
    await server.connect(transport);
    await transport.handleRequest(request, response, request.body);
  };
}

async function second() {
  const { createMcpHandler, Server } = await import('@modelcontextprotocol/server');
  const { toNodeHandler } = await import('@modelcontextprotocol/node');
  return toNodeHandler(
    createMcpHandler((context) => {
      const server = new Server(...info);
      for (const [method, handler] of Object.entries(handlers(traceOf(context.requestInfo?.headers.get('traceparent'))))) {
        server.setRequestHandler(method, handler);
      }
      return server;
    }),
  );
}

const tell = (response) => {
  const body = JSON.stringify(seen);
  response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) });
  response.end(body);
};

if (kind === 'express') {
  const { createMcpExpressApp } = await import('@modelcontextprotocol/sdk/server/express.js');
  const app = createMcpExpressApp();
  app.get('/', (_, response) => tell(response));
  app.post('/mcp', await first('@modelcontextprotocol/sdk'));
  app.use((error, _request, response, _next) => response.status(error.status ?? 500).end()); // a body it cannot read
  app.listen(Number(port), '127.0.0.1');
} else {
  const handle = await { old: () => first('sdk-1.12'), raw: () => first('@modelcontextprotocol/sdk'), v2: second }[kind]();
  createServer((request, response) => {
    if (request.method === 'GET' && request.url === '/') return tell(response);
    return handle(request, response);
  }).listen(Number(port), '127.0.0.1');
}
