{
  description = "Firn: container images from Nix flakes, built inside Kubernetes";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      # What is in the images and how they start: the same file that `make images` reads.
      declared = builtins.fromJSON (builtins.readFile ./e2e/images.json);
      version = (builtins.fromTOML (builtins.readFile ./Cargo.toml)).workspace.package.version;
      contract = builtins.head (builtins.match ".*CONTRACT: u32 = ([0-9]+);.*"
        (builtins.readFile ./crd/src/run.rs));

      perSystem = make: builtins.listToAttrs (map
        (system: { name = system; value = make nixpkgs.legacyPackages.${system}; })
        [ "x86_64-linux" "aarch64-linux" ]);

      rust = pkgs: name: arguments: pkgs.rustPlatform.buildRustPackage ({
        pname = name;
        inherit version;
        src = self;
        cargoLock.lockFile = ./Cargo.lock;
        cargoBuildFlags = [ "--package" name ];
        doCheck = false;
        meta = { mainProgram = name; license = "Apache-2.0"; };
      } // arguments);

      quote = text: "'" + builtins.replaceStrings [ "'" ] [ "'\\''" ] text + "'";
      each = make: set: builtins.concatStringsSep "\n" (builtins.attrValues (builtins.mapAttrs make set));

      image = pkgs: name: own:
        let
          all = key: (declared.common.${key} or { }) // (own.${key} or { });
          program = rust pkgs.pkgsStatic (baseNameOf own.binary) { };
          # Static, because a volume covers /nix in the builder: nothing may depend on it.
          # GIT_EXEC_PATH and NIX_CONF_DIR replace the paths that are compiled in.
          system = pkgs.runCommand "firn-${name}-system" { nativeBuildInputs = [ pkgs.nukeReferences ]; } ''
            mkdir -p $out/usr/bin $out/usr/lib/git-core $out/etc/ssl/certs
            cp ${pkgs.cacert}/etc/ssl/certs/ca-bundle.crt $out/etc/ssl/certs/ca-certificates.crt
            cp ${pkgs.pkgsStatic.gitMinimal}/bin/git $out/usr/bin/
            cp ${pkgs.pkgsStatic.openssh}/bin/ssh $out/usr/bin/
            for program in git-remote-http git-submodule git-sh-setup git-sh-i18n git-sh-i18n--envsubst; do
              cp -L ${pkgs.pkgsStatic.gitMinimal}/libexec/git-core/$program $out/usr/lib/git-core/
            done
            ${if name != "builder" then "" else ''
              cp ${pkgs.pkgsStatic.nix}/bin/nix $out/usr/bin/
              cp ${pkgs.pkgsStatic.busybox}/bin/busybox $out/usr/bin/
              cp ${pkgs.pkgsStatic.bash}/bin/bash $out/usr/bin/bash-static
            ''}
            cp ${program}/bin/${baseNameOf own.binary} $out/usr/bin/
            chmod -R u+w $out
            find $out -type f -exec nuke-refs {} +
          '';
          directory = path: mode: "mkdir -p .${quote path} && chmod ${mode} .${quote path}";
          link = path: text: "mkdir -p .${quote (dirOf path)} && ln -sfn ${quote text} .${quote path}";
          file = path: lines: "mkdir -p .${quote (dirOf path)} && printf '%s' "
            + quote (builtins.concatStringsSep "" (map (line: line + "\n") lines)) + " > .${quote path}";
        in
        pkgs.dockerTools.buildImage {
          name = "firn/${name}";
          tag = version;
          created = "1970-01-01T00:00:00Z";
          copyToRoot = system;
          extraCommands = builtins.concatStringsSep "\n" [
            (each link (all "links"))
            (each file (all "files"))
            (each directory (all "directories"))
          ];
          config = {
            User = own.user;
            Entrypoint = own.entrypoint;
            WorkingDir = declared.common.workingDir;
            Env = builtins.attrValues (builtins.mapAttrs (key: value: "${key}=${value}") (all "env"));
            Labels = {
              "dev.firn.contract" = contract;
              "dev.firn.image" = name;
              "org.opencontainers.image.licenses" = "Apache-2.0";
              "org.opencontainers.image.title" = own.title;
              "org.opencontainers.image.version" = version;
            };
          };
        };
    in
    {
      packages = perSystem (pkgs: rec {
        firn-operator = rust pkgs "firn-operator" { };
        firn-streamer = rust pkgs "firn-streamer" { };
        default = firn-operator;
        operator-image = image pkgs "operator" declared.images.operator;
        builder-image = image pkgs "builder" declared.images.builder;
      });

      devShells = perSystem (pkgs: {
        default = pkgs.mkShell {
          packages = [ pkgs.cargo pkgs.clippy pkgs.rustc pkgs.rustfmt pkgs.go pkgs.git pkgs.gnumake ];
        };
      });

      # `cargo test` of all but the embedded cluster, which needs root and a network.
      checks = perSystem (pkgs: {
        tests = rust pkgs "firn-operator" {
          pname = "firn-tests";
          cargoBuildFlags = [ ];
          nativeCheckInputs = [ pkgs.git ];
          doCheck = true;
        };
      });
    };
}
