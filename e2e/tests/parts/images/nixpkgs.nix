# Stands for nixpkgs where it cannot be had: every function that Firn's flake calls, returning
# derivations that are never built, with the arguments in them to look at.
{
  outputs = { self }:
    let
      packages = system:
        let
          made = name: arguments: derivation {
            inherit name system;
            builder = "/bin/sh";
            args = [ "-c" (builtins.toJSON (builtins.attrNames arguments)) ];
          } // { inherit arguments; };
          set = rec {
            rustPlatform.buildRustPackage = arguments:
              made "${arguments.pname}-${arguments.version}" arguments;
            runCommand = name: arguments: script: made name { inherit arguments script; };
            mkShell = arguments: made "shell" arguments;
            dockerTools.buildImage = arguments: made "image" arguments;
          } // builtins.listToAttrs (map (name: { inherit name; value = made name { }; }) [
            "bash" "busybox" "cacert" "cargo" "clippy" "git" "gitMinimal" "gnumake" "go" "nix"
            "nukeReferences" "openssh" "rustc" "rustfmt"
          ]);
        in
        set // { pkgsStatic = set; };
    in
    {
      legacyPackages = builtins.listToAttrs (map (name: { inherit name; value = packages name; })
        [ "x86_64-linux" "aarch64-linux" ]);
    };
}
