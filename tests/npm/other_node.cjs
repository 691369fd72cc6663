// Loaded before the launcher: a Node that cannot replace its process, and that runs on the platform of the environment.
delete process.execve;
if (process.env.TEST_PLATFORM) {
  Object.defineProperty(process, 'platform', { value: process.env.TEST_PLATFORM });
}
