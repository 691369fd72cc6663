// Globals of a browser that Node lacks, for libraries that look for them. Import it before those.
import { WebSocket } from './websocket.js';

globalThis.WebSocket = WebSocket;
