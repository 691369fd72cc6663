// What a browser has and Node has not, for libraries that look for it among the globals. Import it before them.
import { WebSocket } from './websocket.js';

globalThis.WebSocket = WebSocket;
