// A page that calls a hub, and reconnects by the library's own policy.
//
//   --message-pack  records in MessagePack; without it, in JSON
import { HttpTransportType, HubConnectionBuilder, JsonHubProtocol, LogLevel } from '@microsoft/signalr';
import { MessagePackHubProtocol } from '@microsoft/signalr-protocol-msgpack';

import { flags, report, takeOrders, url } from '../page.js';
import { WebSocket } from '../websocket.js';

const hub = new HubConnectionBuilder()
  .withUrl(url.replace(/^ws/, 'http'), { transport: HttpTransportType.WebSockets, skipNegotiation: true, WebSocket })
  .withHubProtocol(flags.includes('--message-pack') ? new MessagePackHubProtocol() : new JsonHubProtocol())
  .withAutomaticReconnect()
  .withKeepAliveInterval(500)
  .configureLogging(LogLevel.None)
  .build();

// The library distinguishes an end after which it reconnects from a final one.
hub.onreconnecting((error) => report('close', { message: error?.message }));
hub.onreconnected(() => report('open', {}));
hub.onclose((error) => report('close', { message: error?.message, final: true }));

takeOrders({ send: async (text) => report('message', { data: await hub.invoke('echo', text) }) });

await hub.start();
report('open', {});
