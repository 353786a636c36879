# Accounts, the data folder and the passphrase of the site's key file.
prepare() {
    systemd-sysusers hospes.conf
    systemd-tmpfiles --create hospes.conf
    # A service has no keychain, so its keys lie in a sealed file. The passphrase is drawn here, once, sealed to this
    # machine, and passed on by systemd; whoever copies the data folder alone cannot open it.
    credential=/etc/credstore.encrypted/hospes-key-passphrase
    if [ ! -e "$credential" ] && [ ! -e /etc/credstore/hospes-key-passphrase ]; then
        mkdir -p -m 0700 /etc/credstore.encrypted
        # In two steps, because a pipe would hide that the first failed.
        passphrase=$(head -c 32 /dev/urandom | base64 | tr -d '\n')
        if [ "${#passphrase}" -lt 40 ] || ! printf %s "$passphrase" |
            systemd-creds encrypt --with-key=host --name=hospes-key-passphrase - "$credential" >/dev/null 2>&1 ||
            ! chmod 0600 "$credential"
        then
            rm -f "$credential"
            echo "hospes: no passphrase for the key file could be sealed on this machine;" >&2
            echo "hospes: set one by hand before you lay down the site (see docs/install.md)" >&2
        fi
        unset passphrase
    fi
}
