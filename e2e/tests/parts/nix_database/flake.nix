# A small store: enough texts that a table of Nix's database has pages above its leaves, and two
# packages that nothing else refers to, one of which refers to itself.
{
  outputs =
    { self }:
    let
      inherit (builtins) elemAt genList toFile;
      texts = genList (
        n:
        toFile "text-${toString n}" (
          if n == 0 then "bottom" else "${elemAt texts (n - 1)} ${elemAt texts (n / 2)}"
        )
      ) 300;
      package =
        name: script:
        derivation {
          inherit name;
          system = "x86_64-linux";
          builder = "/bin/sh";
          args = [ "-euc" script ];
          PATH = "/usr/bin";
        };
      app = package "app" ''
        mkdir -p $out/bin $out/empty
        printf '#!/bin/sh\necho ${elemAt texts 299} '$out'\n' > $out/bin/app
        chmod +x $out/bin/app
        ln -s $out/bin/app $out/bin/link
      '';
      other = package "other" "echo ${elemAt texts 7} > $out";
      image = nixDatabase: {
        firnImage = 1;
        contents = [ "${app}" "${other}" ];
        inherit nixDatabase;
      };
    in
    {
      root = image true;
      user = image { uid = 65100; gid = 65100; };
    };
}
