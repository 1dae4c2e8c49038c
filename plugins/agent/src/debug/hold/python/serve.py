"""Runs once in a process that is debugged; the agent says where the wheel of debugpy is
(WHEEL) and where to say what is going on (STATUS): two of the process's descriptors.

Each connection to a socket that only root and the process's own user may use is a
client that speaks the debug adapter protocol, and has a debugger for as long as it
lasts. Before and after that nothing is traced, and the process runs at full speed.
"""


def serve(wheel_file, status_file):
    import os
    import socket
    import sys
    import threading

    wheel = "/proc/self/fd/%d" % wheel_file
    settrace, has_monitoring = sys.settrace, sys.version_info >= (3, 12)
    kept = []

    def tell(state, detail=""):
        os.pwrite(status_file, ("%s\n%s" % (state, detail)).encode()[:1000].ljust(1000, b"\0"), 0)

    def load():
        """Imports from the wheel as the archive that it is: what debugpy looks up in
        folders is answered in their stead."""
        import types

        bundle = wheel + "/debugpy/_vendored/pydevd/"
        namespace = types.ModuleType("_pydevd_sys_monitoring")
        namespace.__path__ = [bundle + namespace.__name__]
        sys.modules[namespace.__name__] = namespace
        # Otherwise it warns of modules that are part of the interpreter.
        os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
        listdir = os.listdir
        os.listdir = lambda *path: ["pydevd"] if path and str(path[0]).startswith(wheel) else listdir(*path)
        sys.path.insert(0, wheel)
        try:
            import debugpy._vendored.force_pydevd  # noqa: F401
            import pydevd
            import pydevd_tracing
        finally:
            sys.path.remove(wheel)
            os.listdir = listdir
        # What is served later is an application's client, and not one more server.
        pydevd.PyDB.create_wait_for_connection_thread = lambda debugger: None
        if not has_monitoring:
            pydevd_tracing.get_python_helper_lib_filename = lambda: library(bundle)
        return pydevd, pydevd_tracing

    def library(bundle):
        """What can trace threads that are there already, before Python 3.12."""
        import platform
        import zipimport

        machine = {"x86_64": "amd64"}.get(platform.machine(), platform.machine())
        path = "%spydevd_attach_to_process/attach_linux_%s.so" % (bundle, machine)
        file = os.memfd_create("devloop-pydevd")
        os.write(file, zipimport.zipimporter(wheel).get_data(path))
        return "/proc/self/fd/%d" % file

    def trace(tracing, function):
        """In all threads; where that library can't be loaded, in the first."""
        if tracing._load_python_helper_lib() is not None:
            tracing.set_trace_to_threads(function)
            return
        import ctypes

        def in_first(_):
            settrace(function)
            return 0

        call = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(in_first)
        kept.append(call)
        ctypes.pythonapi.Py_AddPendingCall(call, None)

    def off(frame, event, argument):
        # A thread can only be made to trace something else: this, once.
        settrace(None)

    def debug(client, pydevd, tracing):
        from _pydevd_bundle.pydevd_api import PyDevdAPI

        pydevd.settrace(
            host="client",
            port=1,
            suspend=False,
            patch_multiprocessing=False,
            block_until_connected=False,
            wait_for_ready_to_run=False,
            notify_stdin=False,
            dont_trace_start_patterns=(wheel,),
        )
        settrace(None)
        debugger = pydevd.get_global_debugger()
        if not has_monitoring and tracing._load_python_helper_lib() is None:
            trace(tracing, debugger.trace_dispatch)
        debugger.initialize_network(client)
        debugger.reader.join()
        PyDevdAPI().request_disconnect(debugger, resume_threads=True)
        pydevd.stoptrace()
        if not has_monitoring:
            trace(tracing, off)

    def is_allowed(client):
        # struct ucred: pid, uid, gid (unix(7)).
        credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int.from_bytes(credentials[4:8], sys.byteorder) in (0, os.geteuid())

    def run():
        own = threading.current_thread()
        own.is_pydev_daemon_thread = own.pydev_do_not_trace = True
        try:
            modules = load()
            name = "devloop-debugpy-" + os.urandom(8).hex()
            listener = socket.socket(socket.AF_UNIX)
            listener.bind("\0" + name)
            listener.listen(8)
        except BaseException as error:
            tell("failed", "%s: %s" % (type(error).__name__, error))
            os.close(wheel_file)
            os.close(status_file)
            return
        while True:
            tell("listens", name)
            client, _ = listener.accept()
            if is_allowed(client):
                tell("serves", name)
                try:
                    debug(client, *modules)
                except BaseException as error:
                    sys.stderr.write("devloop: the debugger failed: %s: %s\n" % (type(error).__name__, error))
            client.close()

    # It may be called for twice: when the first call comes late.
    mark = "_devloop_debugpy_%d" % status_file
    if not hasattr(sys, mark):
        setattr(sys, mark, True)
        tell("begun")
        threading.Thread(target=run, name="devloop", daemon=True).start()


serve(WHEEL, STATUS)  # noqa: F821
