#!/usr/bin/env node
// Starts pulsegate: the program in the package of this platform, `@pulsegate/cli-<os>-<cpu>`, or that of PULSEGATE_BINARY.
//
// Where Node can replace its own process (22.15, 23.11 and later), it does, and no second process remains. Otherwise, and
// below a package manager, the program is a child: it gets the signals, and this process ends as it does.
'use strict';

const { spawn, spawnSync } = require('child_process');
const { accessSync, constants, realpathSync, statSync } = require('fs');
const os = require('os');
const path = require('path');
const { isatty } = require('tty');

// The signals that end a process and that others send. SIGKILL cannot be passed on.
const FORWARDED = ['SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGTERM', 'SIGUSR1', 'SIGUSR2'];

// Those that a terminal sends to every process in its foreground.
const KEYS = ['SIGINT', 'SIGQUIT'];

// The time between two looks at the parent, in milliseconds.
const PARENT_INTERVAL = 250;

// Packages of programs, by the names that Node has for a system and a processor.
const PREFIX = '@pulsegate/cli-';

function main() {
    const chosen = process.env.PULSEGATE_BINARY;
    const program = chosen ? override(chosen) : installed();
    const args = process.argv.slice(2);
    const managed = isBelowPackageManager();
    if (typeof process.execve === 'function' && !managed) {
        // Descriptors, environment and process id stay.
        process.execve(program, [program, ...args]);
    } else {
        supervise(program, args, managed);
    }
}

// Returns whether a package manager waits for this process. A script that goes on without it, by `&`, does not count.
function isBelowPackageManager() {
    const { npm_config_user_agent: manager, npm_lifecycle_script: script = '' } = process.env;
    return manager !== undefined && !/(^|[^&])&($|[^&])/.test(script);
}

// Returns the path of the program that PULSEGATE_BINARY names.
function override(chosen) {
    const program = path.resolve(chosen);
    const remedy = 'set PULSEGATE_BINARY to the path of a pulsegate program, or unset it';
    check(program, `PULSEGATE_BINARY=${chosen}`, remedy);
    if (realpathSync(program) === realpathSync(__filename)) {
        fail(`PULSEGATE_BINARY=${chosen} is this launcher; ${remedy}`);
    }
    // A failed execve(2) would abort Node, without a sentence. The functions behind spawnSync run a file without any header
    // as a shell script, so that the version shows whether it is the program.
    const { error, stdout } = spawnSync(program, ['--version'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    if (error || !stdout.startsWith('pulsegate ')) {
        const cause = error ? error.code : `--version prints ${JSON.stringify(stdout)}`;
        fail(`PULSEGATE_BINARY=${chosen} is no pulsegate for ${process.platform}-${process.arch} (${cause}); ${remedy}`);
    }
    return program;
}

// Returns the path of the program in the package of this platform.
function installed() {
    const platform = `${process.platform}-${process.arch}`;
    const wanted = PREFIX + platform;
    const { dependencies = {}, optionalDependencies = {} } = require('../package.json');
    const packages = Object.keys({ ...dependencies, ...optionalDependencies });
    const own = 'set PULSEGATE_BINARY to the path of a pulsegate program that you have built';
    if (!packages.includes(wanted)) {
        const others = packages.map((name) => name.slice(PREFIX.length)).join(', ');
        fail(`no program for ${platform}, only for ${others}; ${own}`);
    }
    const program = resolve(wanted);
    if (program === undefined) {
        const foreign = packages.filter(resolve);
        const cause = foreign.length
            ? `${foreign.join(', ')} is there instead: it was installed on another system`
            : 'optional dependencies were left out, or the installation failed';
        fail(`the package ${wanted} is missing (${cause}); install again on this system with optional ` +
            `dependencies, for example with \`npm install --include=optional\`, or ${own}`);
    }
    check(program, program, `restore it by installing again, or ${own}`);
    return program;
}

// Returns the path of the program in the package `name`; undefined if it is not installed.
function resolve(name) {
    try {
        return require.resolve(`${name}/bin/pulsegate`);
    } catch {
        return undefined;
    }
}

// Fails unless `program` is a file that may be executed.
function check(program, place, remedy) {
    let fault;
    try {
        fault = statSync(program).isFile() ? undefined : 'is not a file';
        accessSync(program, constants.X_OK);
    } catch (error) {
        fault = error.code === 'EACCES' ? 'may not be executed' : `cannot be read (${error.code})`;
    }
    if (fault !== undefined) {
        fail(`${place} ${fault}; ${remedy}`);
    }
}

// Runs the program as a child, passes signals on to it, and ends as it does: with its exit code, or with 128 + n after
// signal n. With `tied`, the end of the parent ends the program, too: a signal to `npx` ends the shell between the two, and
// the shell of Debian and Ubuntu passes nothing on.
function supervise(program, args, tied) {
    const keys = [0, 1, 2].some((descriptor) => isatty(descriptor)) ? KEYS : [];
    let child;
    let ending = false;
    // Before the child exists: otherwise a signal between the two would end this process alone.
    for (const signal of FORWARDED) {
        process.on(signal, () => {
            ending = ending || signal !== 'SIGHUP';
            // From a terminal the program has its own; a second one would abort its drain.
            if (child && !keys.includes(signal)) {
                child.kill(signal);
            }
        });
    }
    const parent = process.ppid;
    child = spawn(program, args, { stdio: 'inherit' });
    child.on('error', (error) => fail(`${program} does not start (${error.code}); restore it by installing again`));
    child.on('exit', (code, signal) => process.exit(signal ? 128 + os.constants.signals[signal] : code));
    const watch = tied && setInterval(() => {
        if (process.ppid !== parent) {
            clearInterval(watch);
            // Unless the parent has passed a signal on, and ended then.
            if (!ending) {
                child.kill('SIGTERM');
            }
        }
    }, PARENT_INTERVAL);
}

function fail(message) {
    process.stderr.write(`pulsegate: ${message}\n`);
    process.exit(1);
}

main();
