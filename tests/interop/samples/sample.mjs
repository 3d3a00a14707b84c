// One small server for the TypeScript SDKs 1.x and 2.x: `node sample.mjs stdio|http|sse [PORT]`.
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { z } from 'zod';

const [transport, port] = process.argv.slice(2);
const text = (value) => ({ content: [{ type: 'text', text: value }] });
const second = await import('@modelcontextprotocol/server').catch(() => null);
const first = second ? null : '@modelcontextprotocol/sdk/server';
const { McpServer } = second ?? (await import(`${first}/mcp.js`));

function sample() {
  const server = new McpServer({ name: 'sample', version: '1.0.0' }, { capabilities: { logging: {} } });
  const tool = (name, description, schema, run) =>
    second
      ? server.registerTool(name, { description, inputSchema: z.object(schema) }, (given, context) => run(given, context.mcpReq))
      : server.tool(name, description, schema, (given, extra) =>
          run(given, { send: extra.sendRequest, notify: extra.sendNotification, _meta: extra._meta, id: extra.requestId }));
  tool('echo', 'Says it back.', { text: z.string() }, async (given) => text(given.text));
  tool('fail', 'Fails in its own way.', {}, async () => { throw new Error('this tool always fails'); });
  tool('count', 'Counts, reporting progress.', { to: z.number() }, async ({ to }, request) => {
    const progressToken = request._meta?.progressToken;
    for (let progress = 1; progress <= to && progressToken !== undefined; progress++) {
      await request.notify({ method: 'notifications/progress', params: { progressToken, progress, total: to } });
    }
    return text(`counted to ${to}`);
  });
  tool('slow', 'Takes its time.', { seconds: z.number() }, async ({ seconds }) => {
    await new Promise((done) => setTimeout(done, seconds * 1000));
    return text('slow and done');
  });
  tool('announce', 'Says that its list of tools has changed.', {}, async () => {
    server.sendToolListChanged();
    return text('announced');
  });
  const message = { role: 'user', content: { type: 'text', text: 'Say something' } };
  if (!second) {
    tool('ask_model', "Asks the client's model.", {}, async (_, request) => {
      const ask = { method: 'sampling/createMessage', params: { messages: [message], maxTokens: 10 } };
      return text(`The model said: ${(await request.send(ask, z.any())).content.text}`);
    });
    tool('ask_roots', "Asks for the client's roots.", {}, async (_, request) =>
      text((await request.send({ method: 'roots/list' }, z.any())).roots.map((root) => root.uri).join(', ')));
    server.resource('hello', 'test://hello', async (uri) => ({ contents: [{ uri: uri.href, text: 'hello' }] }));
    server.prompt('greet', 'Asks for a greeting.', { name: z.string() }, ({ name }) => ({
      messages: [{ role: 'user', content: { type: 'text', text: `Greet ${name}` } }],
    }));
  } else {
    server.registerResource('hello', 'test://hello', {}, async (uri) => ({ contents: [{ uri: uri.href, text: 'hello' }] }));
    const argsSchema = z.object({ name: z.string() });
    server.registerPrompt('greet', { description: 'Asks for a greeting.', argsSchema }, ({ name }) => ({
      messages: [{ role: 'user', content: { type: 'text', text: `Greet ${name}` } }],
    }));
  }
  return server;
}

const listen = (handle) => createServer(handle).listen(Number(port), '127.0.0.1');

if (transport === 'stdio') {
  const { StdioServerTransport } = second ? await import('@modelcontextprotocol/server/stdio') : await import(`${first}/stdio.js`);
  await sample().connect(new StdioServerTransport());
} else if (second) {
  const { toNodeHandler } = await import('@modelcontextprotocol/node');
  listen(toNodeHandler(second.createMcpHandler(() => sample())));
} else if (transport === 'http') {
  const { StreamableHTTPServerTransport } = await import(`${first}/streamableHttp.js`);
  const sessions = new Map();
  listen(async (request, response) => {
    let session = sessions.get(request.headers['mcp-session-id']);
    if (!session) {
      session = new StreamableHTTPServerTransport({
        sessionIdGenerator: () => randomUUID(),
        onsessioninitialized: (id) => sessions.set(id, session),
      });
      await sample().connect(session);
    }
    await session.handleRequest(request, response);
  });
} else {
  const { SSEServerTransport } = await import(`${first}/sse.js`);
  const sessions = new Map();
  listen(async (request, response) => {
    const url = new URL(request.url, 'http://localhost');
    if (request.method === 'GET') {
      const session = new SSEServerTransport('/messages', response);
      sessions.set(session.sessionId, session);
      await sample().connect(session);
    } else {
      await sessions.get(url.searchParams.get('sessionId')).handlePostMessage(request, response);
    }
  });
}
