"""Volumes as the kubelet makes and updates them."""

import os
import pathlib
import secrets
import subprocess


class Volumes:
    """The volumes of one pod, as folders below `folder`."""

    def __init__(self, folder, template, config_maps, secret_data):
        self.folder = pathlib.Path(folder)
        self.config_maps, self.secret_data = config_maps, secret_data
        self.mounted = []
        self.group = template["spec"].get("securityContext", {}).get("fsGroup")
        self.volumes = {volume["name"]: volume for volume in template["spec"].get("volumes", [])}
        for name, volume in self.volumes.items():
            self._make(name, volume)

    def path(self, name):
        """Returns the folder of a volume."""
        assert name in self.volumes, f"no volume {name}"
        return self.folder / name

    def _make(self, name, volume):
        path = self.folder / name
        path.mkdir(parents=True)
        if "emptyDir" in volume:
            settings = volume["emptyDir"] or {}
            if settings.get("medium") == "Memory":
                size = settings.get("sizeLimit", "64Mi").removesuffix("i")
                subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", name, path], check=True)
                self.mounted.append(path)
            # Open to every user of the pod.
            self._own(path, 0o777, 0o660)
            return
        self.update(name)

    def update(self, name):
        """Writes the current data as AtomicWriter does (pkg/volume/util/atomic_writer.go): the files into a new folder with
        the time in its name, then `..data` over to it by a rename, then the old folder away. The names that containers open
        are links through `..data`, so that all files change at once."""
        path, volume = self.folder / name, self.volumes[name]
        payload, mode = self._payload(volume)
        fresh = path / f"..{secrets.token_hex(6)}"
        fresh.mkdir(mode=0o755)
        self._own(fresh, 0o755)
        for file, content in payload.items():
            (fresh / file).write_text(content)
            self._own(fresh / file, mode)
        old = path / os.readlink(path / "..data") if (path / "..data").is_symlink() else None
        (path / "..data_tmp").symlink_to(fresh.name)
        os.rename(path / "..data_tmp", path / "..data")
        for file in payload:
            if not (path / file).is_symlink():
                (path / file).symlink_to(f"..data/{file}")
        if old:
            for file in old.iterdir():
                file.unlink()
            old.rmdir()

    def _payload(self, volume):
        if "configMap" in volume:
            source, data, name = volume["configMap"], self.config_maps, volume["configMap"]["name"]
        elif "secret" in volume:
            source, data, name = volume["secret"], self.secret_data, volume["secret"]["secretName"]
        else:
            raise AssertionError(f"volumes of this kind are not replayed: {volume}")
        assert name in data or source.get("optional"), f"the volume {volume['name']} needs {name}, which does not exist"
        data = data.get(name, {})
        if "items" in source:
            data = {item["path"]: data[item["key"]] for item in source["items"]}
        return data, source.get("defaultMode", 0o644)

    def remove(self):
        """Removes the volumes in memory."""
        for path in self.mounted:
            subprocess.run(["umount", path], check=True)

    def _own(self, path, mode, group_mode=0o440):
        """Owner root, and with `fsGroup` that group, which gets these permissions (pkg/volume/volume_linux.go: 0440, or 0660 in a
        volume that can be written to, and folders setgid and executable)."""
        if self.group is not None:
            os.chown(path, 0, self.group)
            mode |= group_mode | (0o2110 if path.is_dir() else 0)
        os.chmod(path, mode)
