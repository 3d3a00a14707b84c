// A server of the TypeScript SDK 1.x with the store of its examples, whose tool ends its stream half-way.
import { randomUUID } from 'node:crypto';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { createMcpExpressApp } from '@modelcontextprotocol/sdk/server/express.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import { InMemoryEventStore } from '@modelcontextprotocol/sdk/examples/shared/inMemoryEventStore.js';
import { z } from 'zod';

const eventStore = new InMemoryEventStore();
const sessions = new Map();
const app = createMcpExpressApp();

app.all('/mcp', async (request, response) => {
  let transport = sessions.get(request.headers['mcp-session-id']);
  if (!transport) {
    transport = new StreamableHTTPServerTransport({
      sessionIdGenerator: () => randomUUID(),
      eventStore,
      retryInterval: 100,
      onsessioninitialized: (id) => sessions.set(id, transport),
    });
    const server = new McpServer({ name: 'polling', version: '1' });
    server.tool('poll', 'Ends the stream, works on, and answers.', { seconds: z.number() }, async ({ seconds }, extra) => {
      extra.closeSSEStream?.();
      await new Promise((done) => setTimeout(done, seconds * 1000));
      return { content: [{ type: 'text', text: `done after ${seconds} s` }] };
    });
    await server.connect(transport);
  }
  await transport.handleRequest(request, response, request.body);
});

app.listen(Number(process.argv[2]), '127.0.0.1');
